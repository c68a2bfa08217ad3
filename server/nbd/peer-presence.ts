// Whether the peer of a connection is still there, for sockets that are not read and so hear of nothing. Law: a peer that
// said NBD_CMD_DISC and shut down its sending side still gets its replies; one that is gone writes nothing any more.
//
// The kernel tells three things. POLLHUP or POLLERR: nobody is there. Nothing: somebody is. POLLRDHUP alone: the peer will
// send no more, which over TCP is all that is ever seen of a killed client, and over TCP and Unix sockets alike what
// libnbd does behind NBD_CMD_DISC while it waits for its last replies. So the stream decides, as it does for a socket that
// is read: an end behind NBD_CMD_DISC, which may lie unread in the socket, is a farewell, any other is the end of the
// connection. (Under TLS the socket is one end of a tunnel, which passes the end on behind all that the peer had to say.)
import type { Socket } from 'node:net'
import { NBD_CMD_DISC, NBD_EXTENDED_REQUEST_MAGIC, NBD_REQUEST_MAGIC, requestHeaderBytes, viewOf } from 'nbd-protocol'
import { hungUp, unreadTail } from '../../backends/index.js'

const SENDS_NO_MORE = 1
const GONE = 2
const TYPE_AT = 6

/** What a connection knows of its stream. */
export interface LastWords {
  /** NBD_CMD_DISC was read. */
  readonly disconnected: boolean
  readonly extended: boolean
  /** The last bytes that were read and wait to be served. */
  readonly waiting: Uint8Array
}

/** Whether nobody is there any more who sent requests or waits for replies. Takes a system call. */
export function peerGone(socket: Socket, fd: number, words: LastWords): boolean {
  // A closed socket's descriptor may be another's by now.
  if (socket.destroyed) return true
  const state = hungUp(fd)
  if (state !== SENDS_NO_MORE) return state === GONE
  return !saidFarewell(words, fd)
}

/** Whether the last request of the stream is NBD_CMD_DISC; `fd`: it may lie unread in this socket. */
export function saidFarewell({ disconnected, extended, waiting }: LastWords, fd?: number): boolean {
  if (disconnected) return true
  const length = requestHeaderBytes(extended)
  const last = new Uint8Array(length)
  const unread = fd === undefined ? 0 : unreadTail(fd, last)
  if (unread < length) {
    const read = waiting.subarray(Math.max(0, waiting.length - (length - unread)))
    last.set(read, length - unread - read.length)
  }
  const view = viewOf(last)
  const magic = extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC
  return view.getUint32(0) === magic && view.getUint16(TYPE_AT) === NBD_CMD_DISC
}
