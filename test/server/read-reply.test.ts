// The buffers of READs that wait for storage. Law: one that is of no use goes back to the pool, whatever the reason.
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { emptyRequest, NBD_CMD_READ } from 'nbd-protocol'
import { EIO, openBackend, SYNC_FAILED } from '../../backends/index.js'
import { takeBuffer } from '../../server/nbd/buffer-pool.js'
import { readUnharmed } from '../../server/nbd/read-reply.js'
import { serveInProcess } from '../support/in-process.js'
import { changed } from '../support/linux-disk-media.js'

const LENGTH = 256 << 10

describe('the buffer of a READ', () => {
  for (const [what, fails] of [
    ['that storage failed', 'read'],
    ['whose bytes became suspect while it was on its way', 'sync'],
  ] as const) {
    test(`${what} goes back to the pool`, async () => {
      const memory = await openBackend('memory', { size: 4 * LENGTH })
      let used: ArrayBufferLike | undefined
      const server = await serveInProcess(
        changed(memory, {
          read: async (target, ...range) => {
            used = target.buffer
            if (fails === 'read') return EIO
            server.served.durability.judge(EIO | SYNC_FAILED)
            return memory.read(target, ...range)
          },
        }),
      )
      after(() => server.close())
      server.served.durability.mark(0, LENGTH)
      const request = { ...emptyRequest(), type: NBD_CMD_READ, length: LENGTH }
      assert.equal(await readUnharmed(server.served, 'simple', request, () => true), EIO)
      assert.equal(takeBuffer(LENGTH + 1).buffer, used)
    })
  }
})
