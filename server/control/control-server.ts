// The operator's door: a Unix socket in the state directory, for its owner alone. One JSON line asks, one answers.

import { once } from 'node:events'
import { existsSync, rmSync, unlinkSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { OpenError } from '../../backends/index.js'
import { listenPrivately } from '../nbd/listen.js'
import { UsageError } from '../values.js'
import { parseControlRequest } from './control-request.js'
import { type ControlReply, type ControlRequest, failed } from './export-actions.js'

/** Longest question; nobody honest comes near it. */
const LINE_CHARACTERS_MAX = 64 << 10
/** sun_path of unix(7), its closing NUL left off. */
const UNIX_PATH_BYTES_MAX = 107

export function controlSocketPath(stateDirectory: string): string {
  return join(stateDirectory, 'control')
}

/** Who answers. */
export type Answer = (request: ControlRequest) => Promise<ControlReply>

/** A fault of ours that a question has met is told to who asked, and is no reason to leave the clients. */
async function replyTo(line: string | undefined, answer: Answer): Promise<ControlReply> {
  try {
    if (line !== undefined) return await answer(parseControlRequest(line))
    return failed(`that is no question: a line has ${LINE_CHARACTERS_MAX} characters at most`)
  } catch (error) {
    if (error instanceof UsageError) return failed(error.message)
    return failed(`candor has a fault, and may not have done that: ${(error as Error).stack ?? String(error)}`)
  }
}

function serve(socket: Socket, answer: Answer): void {
  let text = ''
  socket.setEncoding('utf8')
  socket.on('error', () => socket.destroy())
  const take = (chunk: string) => {
    text += chunk
    const end = text.indexOf('\n')
    const isTooLong = (end === -1 ? text.length : end) > LINE_CHARACTERS_MAX
    if (end === -1 && !isTooLong) return
    // One question, one answer: what comes behind it is read, since the socket would not close otherwise, and left.
    socket.off('data', take).resume()
    const line = isTooLong ? undefined : text.slice(0, end)
    void replyTo(line, answer).then((told) => socket.end(`${JSON.stringify(told)}\n`))
  }
  socket.on('data', take)
}

/** The operator's door, open. */
export interface ControlDoor {
  readonly fd: number
  /** Another process listens on the same socket: what was asked here is answered, and then all is settled. */
  leave(): Promise<void>
  close(): void
}

/** Listens in the state directory, which is locked: a socket that lies there is a dead predecessor's. @throws OpenError */
export async function openControl(stateDirectory: string, answer: Answer, moved?: number): Promise<ControlDoor> {
  const path = controlSocketPath(stateDirectory)
  if (Buffer.byteLength(path) > UNIX_PATH_BYTES_MAX) {
    throw new OpenError(`the control socket ${path} would have too long a path: choose a shorter --state-dir`)
  }
  if (moved === undefined && existsSync(path)) unlinkSync(path)
  const fd = moved ?? listenPrivately({ kind: 'unix', path })
  const server = createServer((socket) => serve(socket, answer))
  server.listen({ fd })
  await once(server, 'listening')
  // A connection that could not be accepted, for want of descriptors: whoever asked sees it closed.
  server.on('error', () => {})
  const leave = () => new Promise<void>((resolve) => server.close(() => resolve()))
  const close = () => {
    server.close()
    try {
      rmSync(path, { force: true })
    } catch {
      // A state directory that cannot be written any more: what lies there is a dead server's, and the next one takes it away.
    }
  }
  return { fd, leave, close }
}
