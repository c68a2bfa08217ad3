// The socket between two processes of an upgrade, when one of them is gone. Law: nobody ends for want of somebody to tell.
import assert from 'node:assert/strict'
import { closeSync } from 'node:fs'
import { test } from 'node:test'
import { socketPair } from '../../backends/index.js'
import { Channel } from '../../server/upgrade/channel.js'

interface Word {
  readonly kind: string
}

test('who has something to mention to a process that is gone goes on, and has no descriptor of it to hand over', async () => {
  const [near, far] = socketPair()
  const channel = new Channel<Word, Word>(near)
  assert.equal(channel.fd, near)
  const ended = new Promise<void>((resolve) => {
    channel.onEnd = resolve
  })
  closeSync(far)
  // Before its end is heard, and afterwards.
  channel.mention({ kind: 'noted' })
  assert.throws(() => channel.tell({ kind: 'noted' }), /cannot be told: EPIPE/)
  await ended
  channel.mention({ kind: 'noted' })
  assert.equal(channel.fd, undefined)
  channel.close()
  channel.mention({ kind: 'noted' })
  assert.equal(channel.fd, undefined)
})
