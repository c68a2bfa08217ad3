// Other people's servers in candor's place, on a Unix socket. Law: one that is started ends with its scope.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { Scope } from './faults.js'

/** nbdkit's file plugin. Resolves with a URI when it takes connections; the socket is made in `folder`. */
export function startNbdkit(scope: Scope, image: string, folder: string): Promise<string> {
  const socket = join(folder, 'nbdkit')
  return start(scope, socket, ['nbdkit', '-f', '-U', socket, 'file', image])
}

/** qemu-nbd; with `unsafe` it answers FLUSH with success and does nothing. */
export function startQemuNbd(
  scope: Scope,
  image: string,
  folder: string,
  cache: 'writeback' | 'unsafe',
): Promise<string> {
  const socket = join(folder, 'qemu-nbd')
  const words = ['--persistent', '--format=raw', `--cache=${cache}`, '--shared=4', `--socket=${socket}`]
  return start(scope, socket, ['qemu-nbd', ...words, image])
}

async function start(scope: Scope, socket: string, words: readonly string[]): Promise<string> {
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...words], { stdio: 'ignore' })
  const closed = once(child, 'close')
  scope.after(() => {
    child.kill('SIGKILL')
    return closed
  })
  await Promise.race([untilListening(socket), closed.then(() => assert.fail(`${words[0]} ended`))])
  return `nbd+unix:///?socket=${socket}`
}

async function untilListening(path: string): Promise<void> {
  const socket = connect(path)
  const listens = await once(socket, 'connect').then(
    () => true,
    () => false,
  )
  socket.destroy()
  if (!listens) await pause(20).then(() => untilListening(path))
}
