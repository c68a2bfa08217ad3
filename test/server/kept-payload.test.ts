// The payload of a WRITE that waits for storage. Law: it stays what the client sent until storage has it, whatever comes
// behind it on the same connection.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { DONE, WOULD_BLOCK } from '../../backends/index.js'
import { contents, disk, gate, KIB, noReadData, pattern, rawClient, until } from '../support/large-writes.js'
import { writeRequest } from '../support/raw-bytes.js'

const COUNT = 24

describe('the payload of a WRITE that waits', { timeout: 60_000 }, () => {
  for (const length of [4 * KIB, 60 * KIB, 100 * KIB, 256 * KIB, 1024 * KIB]) {
    test(`of ${length / KIB} KiB is untouched by ${COUNT - 1} more that come meanwhile`, async () => {
      const served = await disk()
      const storage = gate()
      served.plan = ({ command, now }) => {
        if (command !== 'write') return undefined
        return now ? { outcome: WOULD_BLOCK } : { outcome: DONE, after: storage.opened }
      }
      const client = await rawClient(served)
      const payloads = Array.from({ length: COUNT }, (_, index) => pattern(length, index + 1))
      const frames = payloads.map((payload, index) => writeRequest('simple', BigInt(index), index * length, payload))
      const sent = client.send(Buffer.concat(frames))
      await until(() => served.writes.length === COUNT)
      storage.open()
      await sent
      for (let index = 0; index < COUNT; index++) assert.equal((await client.reply(noReadData))?.error, 0)
      const found = await contents(served, 0, COUNT * length)
      payloads.forEach((payload, index) => {
        assert.ok(found.subarray(index * length, (index + 1) * length).equals(payload), `the write ${index}`)
      })
    })
  }
})
