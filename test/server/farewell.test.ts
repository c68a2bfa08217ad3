// The end of a client's stream. Law: a farewell gets its last replies; whatever else the stream ends in, the connection ends.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { NBD_CMD_DISC, NBD_CMD_READ, NBD_CMD_WRITE } from 'nbd-protocol'
import { DONE, WOULD_BLOCK } from '../../backends/index.js'
import { disk, gate, KIB, MIB, noReadData, pattern, rawClient, until } from '../support/large-writes.js'
import { request, writeRequest } from '../support/raw-bytes.js'

const farewell = request('simple', { type: NBD_CMD_DISC, cookie: 9n })

/** A WRITE that announces more than it brings, and whose last bytes read as a farewell. */
function unfinished(broughtBytes: number): Uint8Array {
  const payload = Buffer.concat([pattern(broughtBytes - farewell.length, 7), farewell])
  return request('simple', { type: NBD_CMD_WRITE, cookie: 1n, length: 2 * broughtBytes, payload })
}

describe('the end of a stream', { timeout: 30_000 }, () => {
  for (const bytes of [100, 100 * KIB, 600 * KIB, MIB]) {
    test(`in the middle of a WRITE of which ${bytes} bytes came is no farewell, though they end like one`, async () => {
      const served = await disk()
      const client = await rawClient(served)
      await client.send(unfinished(bytes))
      await client.leave()
      await until(() => served.server.server.connections === 0)
    })
  }

  test('in the middle of a WRITE behind one that waits is none either, and the one before is answered', async () => {
    const served = await disk({ slowRequestsMax: 1 }, { onSpace: { kind: 'hold', timeoutMs: 60_000 } })
    const storage = gate()
    served.plan = ({ command, now }) => {
      if (command !== 'read') return undefined
      return now ? { outcome: WOULD_BLOCK } : { outcome: DONE, after: storage.opened }
    }
    const client = await rawClient(served)
    const reads = [1n, 2n].map((cookie) => request('simple', { type: NBD_CMD_READ, cookie, length: KIB }))
    await client.send(Buffer.concat([...reads, unfinished(100)]))
    client.socket.end()
    storage.open()
    for (let index = 0; index < 2; index++) assert.equal((await client.reply(() => KIB))?.error, 0)
    await client.closed
    await until(() => served.server.server.connections === 0)
  })

  test('behind a farewell gets the replies that were waited for', async () => {
    const served = await disk()
    const storage = gate()
    served.plan = ({ command, now }) => {
      if (command !== 'write') return undefined
      return now ? { outcome: WOULD_BLOCK } : { outcome: DONE, after: storage.opened }
    }
    const client = await rawClient(served)
    await client.send(Buffer.concat([writeRequest('simple', 1n, 0, pattern(KIB, 3)), farewell]))
    client.socket.end()
    await until(() => served.writes.length === 1)
    storage.open()
    assert.equal((await client.reply(noReadData))?.cookie, 1n)
    await client.closed
  })
})
