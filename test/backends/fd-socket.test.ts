// Sockets that carry descriptors. Law under test: bytes in order, descriptors with the first byte of their message, one
// end, and no descriptor left over.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, fstatSync, openSync, readFileSync, readlinkSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { errnoName, eventFd, FdSocket, MESSAGE_FDS_MAX, socketPair, UnusableDescriptor } from '../../backends/index.js'
import { temporaryFolder } from '../support/candor.js'
import { closePeers, Peer, pair } from '../support/fd-socket-ends.js'

const PEER = new URL('../support/fd-socket-peer.js', import.meta.url)
const MIB = 1 << 20
const folder = temporaryFolder()
after(() => folder.remove())
after(closePeers)

function openFile(name: string, text: string): number {
  const fd = openSync(join(folder.path, name), 'w+')
  writeSync(fd, text)
  return fd
}

/** Numbers as bytes, so that a piece lost or moved shows. */
function numbered(length: number, first: number): Uint8Array {
  return new Uint8Array(Uint32Array.from({ length: length / 4 }, (_, index) => first + index).buffer)
}

describe('a socket that carries descriptors', () => {
  test('a message arrives with its descriptors, which are open files of the sender and close on exec', async () => {
    const [one, other] = pair()
    const fds = [openFile('a', 'alpha'), openFile('b', 'beta')]
    assert.equal(one.socket.send(Buffer.from('first')), 0)
    assert.equal(one.socket.send(Buffer.from('second'), fds), 0)
    await other.until(() => other.fds.length === 2 && other.bytes.length === 11)
    assert.equal(other.bytes.toString(), 'firstsecond')
    assert.deepEqual(
      other.fds.map((fd) => readFileSync(`/proc/self/fd/${fd}`, 'utf8')),
      ['alpha', 'beta'],
    )
    for (const fd of other.fds) {
      const [, flags = '0'] = /flags:\s+(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')) ?? []
      assert.equal(Number.parseInt(flags, 8) & 0o2000000, 0o2000000, 'O_CLOEXEC')
    }
    assert.deepEqual(
      other.fds.map((fd) => fstatSync(fd).ino),
      fds.map((fd) => fstatSync(fd).ino),
    )
    for (const fd of [...fds, ...other.fds]) closeSync(fd)
  })

  test('as many descriptors as the kernel carries go with one message, and one more is refused', async () => {
    const [one, other] = pair()
    const fd = openFile('many', 'many')
    assert.throws(() => one.socket.send(new Uint8Array(1), Array(MESSAGE_FDS_MAX + 1).fill(fd)), /at most 253/)
    assert.equal(one.socket.send(new Uint8Array(1), Array(MESSAGE_FDS_MAX).fill(fd)), 0)
    await other.until(() => other.fds.length === MESSAGE_FDS_MAX)
    for (const each of [fd, ...other.fds]) closeSync(each)
  })

  test('what the peer does not take at once goes later, whole and in order, with descriptors closed in the meantime', async () => {
    const [one, otherFd] = socketPair()
    const sender = new Peer(one)
    assert.equal(sender.socket.send(numbered(3 * MIB, 0)), 0)
    const fd = openFile('late', 'late')
    assert.equal(sender.socket.send(numbered(1024, 1e6), [fd]), 0)
    closeSync(fd)
    assert.ok(sender.socket.unsent > MIB)
    const other = new Peer(otherFd)
    await other.until(() => other.bytes.length === 3 * MIB + 1024)
    assert.deepEqual(other.bytes, Buffer.concat([numbered(3 * MIB, 0), numbered(1024, 1e6)]))
    assert.equal(sender.socket.unsent, 0)
    const late = other.pieces.findIndex(({ fds }) => fds.length > 0)
    const end = other.pieces.slice(0, late + 1).reduce((sum, { data }) => sum + data.length, 0)
    assert.ok(end > 3 * MIB, 'the descriptor comes in the piece in which its message begins')
    assert.equal(readFileSync(`/proc/self/fd/${other.fds[0]}`, 'utf8'), 'late')
    for (const each of other.fds) closeSync(each)
  })

  test('the end is told once, after all that was sent before it; a peer that is gone is EPIPE', async () => {
    const [one, other] = pair()
    one.socket.send(Buffer.from('last words'))
    one.socket.close()
    await other.until(() => other.ends.length > 0)
    assert.equal(other.bytes.toString(), 'last words')
    assert.deepEqual(other.ends, [0])
    assert.equal(errnoName(other.socket.send(new Uint8Array(1))), 'EPIPE')
    await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual(other.ends, [0])
    assert.throws(() => one.socket.send(new Uint8Array(1)), /closed/)
  })

  test('closing within an event is the last that is heard, and gives the descriptor back', async () => {
    const [one, otherFd] = socketPair()
    const sender = new Peer(one)
    for (let message = 0; message < 3; message++) sender.socket.send(new Uint8Array(8), [eventFdOnce])
    let heard = 0
    const other = new FdSocket(otherFd, {
      arrived: (_, fds) => {
        heard++
        for (const fd of fds) closeSync(fd)
        other.close()
      },
      ended: () => heard++,
    })
    await sender.until(() => sender.ends.length > 0)
    assert.equal(heard, 1)
    assert.throws(() => fstatSync(otherFd), { code: 'EBADF' })
  })

  test('is made of a Unix stream socket and of nothing else', () => {
    const file = openFile('none', 'no socket')
    for (const fd of [file, eventFdOnce, 9999]) {
      assert.throws(() => new FdSocket(fd, { arrived: () => {}, ended: () => {} }), UnusableDescriptor)
    }
    assert.equal(fstatSync(file).size, 9)
    closeSync(file)
  })

  test('a thread has sockets of its own, and one that is ended leaves none behind', async () => {
    const [one, far] = socketPair()
    const peer = new Peer(one)
    const worker = new Worker(PEER, { workerData: far, trackUnmanagedFds: false })
    await once(worker, 'message')
    const fd = openFile('through', 'through a thread')
    peer.socket.send(Buffer.from('to a thread'), [fd])
    await peer.until(() => peer.bytes.length === 11 && peer.fds.length === 1)
    assert.equal(readFileSync(`/proc/self/fd/${peer.fds[0]}`, 'utf8'), 'through a thread')
    for (const each of [fd, ...peer.fds]) closeSync(each)
    await worker.terminate()
    await peer.until(() => peer.ends.length > 0)
    assert.throws(() => fstatSync(far), { code: 'EBADF' })
  })

  test('a process without room for the descriptors ends the stream with EMFILE and keeps none of them', async () => {
    const [one, far] = socketPair()
    const peer = new Peer(one)
    const child = spawn('sh', ['-c', 'ulimit -n 64; exec "$0" "$1" 3', process.execPath, fileURLToPath(PEER)], {
      stdio: ['ignore', 'pipe', 'inherit', far],
    })
    closeSync(far)
    assert.ok(child.stdout)
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    assert.equal((await lines.next()).value, 'there')
    peer.socket.send(new Uint8Array(1), Array(60).fill(eventFdOnce))
    const { errno, more } = JSON.parse((await lines.next()).value ?? '{}')
    assert.equal(errnoName(errno), 'EMFILE')
    assert.equal(more, 0)
    assert.deepEqual(await once(child, 'close'), [0, null])
  })
})

const eventFdOnce = eventFd()
after(() => closeSync(eventFdOnce))

test('an eventfd is one', () => {
  assert.equal(readlinkSync(`/proc/self/fd/${eventFdOnce}`), 'anon_inode:[eventfd]')
})
