// The pair of sockets between a secured client and its export's thread. Law under test: replies that were given to it reach the
// client, whatever the client has asked behind them.
import assert from 'node:assert/strict'
import { closeSync } from 'node:fs'
import { Socket } from 'node:net'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { socketIo, socketPair } from '../../backends/index.js'
import { Tunnels } from '../../server/nbd/tunnel.js'

const KIB = 1024
/** More than a pair of sockets holds. */
const MUCH = 2048 * KIB

/** Sends until the kernel takes no more; returns how many bytes it took. */
async function fill(fd: number, bytes: Uint8Array): Promise<number> {
  let sent = 0
  for (let idle = 0; idle < 20 && sent < bytes.length; ) {
    const took = socketIo.sendNow(fd, bytes, sent, bytes.length - sent)
    assert.ok(took >= 0)
    sent += took
    idle = took === 0 ? idle + 1 : 0
    await turn()
  }
  return sent
}

test('a slow client that asks for more than is read has its last replies when the export ends', async (t) => {
  const [client, accepted] = socketPair()
  t.after(() => closeSync(client))
  const secured = new Socket({ fd: accepted, readable: true, writable: true })
  const tunnels = new Tunnels()
  const far = tunnels.through(secured)
  assert.ok((await fill(client, new Uint8Array(MUCH))) < MUCH, 'requests wait in front of the export')
  const replies = await fill(far, new Uint8Array(MUCH).fill(7))
  assert.ok(replies < MUCH, 'replies wait in front of the client')
  closeSync(far)
  await turn()
  let came = 0
  const target = new Uint8Array(64 * KIB)
  while (tunnels.open > 0) {
    const length = socketIo.receiveNow(client, target, 0)
    if (length > 0) came += length
    else await turn()
  }
  for (let length = 1; length > 0; came += length) length = Math.max(0, socketIo.receiveNow(client, target, 0))
  assert.equal(came, replies)
})
