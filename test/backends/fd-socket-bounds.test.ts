// What a peer may cost that does not read, or does not stop sending. Law under test: bytes, descriptors and turns have a bound.
import assert from 'node:assert/strict'
import { closeSync, readdirSync } from 'node:fs'
import { after, describe, test } from 'node:test'
import { errnoName, eventFd, FdSocket, socketPair, UNSENT_FDS_MAX } from '../../backends/index.js'
import { closePeers, Peer, pair } from '../support/fd-socket-ends.js'

const MIB = 1 << 20
const someFd = eventFd()
after(() => {
  closePeers()
  closeSync(someFd)
})

describe('a socket that carries descriptors', () => {
  test('a peer that does not read is not waited for without bound', () => {
    const [one, other] = socketPair()
    const sender = new Peer(one)
    let errno = 0
    let taken = 0
    for (; errno === 0; taken += errno === 0 ? 1 : 0) errno = sender.socket.send(new Uint8Array(MIB))
    assert.equal(errnoName(errno), 'ENOBUFS')
    assert.ok(taken >= 4 && taken <= 5, `${taken} MiB were taken`)
    const before = readdirSync('/proc/self/fd').length
    assert.notEqual(sender.socket.send(new Uint8Array(MIB), [other]), 0)
    assert.equal(readdirSync('/proc/self/fd').length, before)
    closeSync(other)
  })

  test('descriptors that a peer does not read are kept up to a bound, and the next is refused until it has read', async () => {
    const [one, far] = socketPair()
    const sender = new Peer(one)
    const openNow = () => readdirSync('/proc/self/fd').length
    while (sender.socket.unsent === 0) sender.socket.send(new Uint8Array(36))
    const before = openNow()
    for (let kept = 1; kept <= UNSENT_FDS_MAX; kept++) {
      assert.equal(sender.socket.send(new Uint8Array(36), [someFd]), 0)
      assert.equal(openNow(), before + kept)
    }
    const unsent = sender.socket.unsent
    assert.equal(errnoName(sender.socket.send(new Uint8Array(36), [someFd])), 'ENOBUFS')
    assert.equal(openNow(), before + UNSENT_FDS_MAX)
    assert.equal(sender.socket.unsent, unsent)
    assert.equal(sender.socket.send(new Uint8Array(36)), 0)
    const other = new Peer(far)
    await other.until(() => other.fds.length === UNSENT_FDS_MAX)
    for (const fd of other.fds) closeSync(fd)
    assert.equal(sender.socket.send(new Uint8Array(36), [someFd]), 0)
    await other.until(() => other.fds.length === UNSENT_FDS_MAX + 1)
    closeSync(other.fds[UNSENT_FDS_MAX] ?? -1)
  })

  test('a turn of the event loop brings one piece of a socket, however much lies there', async () => {
    const [one, far] = socketPair()
    const sender = new Peer(one)
    sender.socket.send(new Uint8Array(MIB / 8))
    let [turn, received] = [0, 0]
    const turns: number[] = []
    const reader = new FdSocket(
      far,
      {
        arrived: (data) => {
          turns.push(turn)
          received += data.length
        },
        ended: () => {},
      },
      { pieceBytesMax: 4096 },
    )
    for (; received < MIB / 8; turn++) await new Promise((resolve) => setImmediate(resolve))
    reader.close()
    assert.ok(turns.length >= 32)
    assert.equal(new Set(turns).size, turns.length, 'two pieces in one turn')
  })

  test('a peer that sends without end lets others have their turn', async () => {
    const [one, other] = pair()
    const [mine, theirs] = pair()
    const flood = setInterval(() => {
      while (one.socket.unsent < MIB) one.socket.send(new Uint8Array(64))
    }, 0)
    await other.until(() => other.bytes.length > MIB)
    mine.socket.send(Buffer.from('me too'))
    await theirs.until(() => theirs.bytes.length === 6)
    clearInterval(flood)
  })
})
