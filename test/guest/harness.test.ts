// The harness for guests, tried on itself: what the other tests here conclude rests on it.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bootGuest, skipWithoutGuests, startGuest } from '../support/guest.js'

const skip = skipWithoutGuests()

test('a script that fails ends with its status, its output and its trace', { skip }, async () => {
  const run = await bootGuest({ script: 'uname -s\nsh -c "echo worse >&2; exit 7"\necho not reached\n' })
  assert.equal(run.status, 7)
  assert.equal(run.output, 'Linux\n')
  assert.match(run.kernelLog, /^\+ uname -s$/m)
  assert.match(run.kernelLog, /^worse$/m)
})

test('a running guest answers on its input, QEMU on its control socket, and a power cut ends both', {
  skip,
}, async (scope) => {
  const guest = await startGuest({ script: 'while read -r word; do echo "heard $word"; done\n' })
  scope.after(() => guest.powerCut())
  await guest.send('something')
  const [, word] = await guest.waitForOutput(/^heard (\w+)$/m)
  assert.equal(word, 'something')
  const { status } = (await guest.qmp('query-status')) as { status: string }
  assert.equal(status, 'running')
  await assert.rejects(guest.qmp('no-such-command'), /QMP: .*no-such-command/)
  const waiting = guest.waitForOutput(/never/)
  await Promise.all([assert.rejects(waiting, /ended without writing \/never\//), guest.powerCut()])
  assert.equal((await guest.finished).status, undefined)
  await assert.rejects(guest.qmp('query-status'), /QEMU is gone/)
})

test('a guest that takes too long is killed, and the error shows the end of its console and output', {
  skip,
}, async () => {
  const guest = await startGuest({ script: 'sleep 1000\n', timeoutMs: 4000 })
  await assert.rejects(
    guest.finished,
    /did not finish within 4000 ms[\s\S]*the console's end:\n.*[\s\S]*the output's end/,
  )
  await assert.rejects(
    bootGuest({ script: '', qemuArguments: ['-no-such-option'] }),
    /ended without a status[\s\S]*no-such-option/,
  )
})
