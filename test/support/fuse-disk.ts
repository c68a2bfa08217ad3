// A file system whose server can be stopped: nbdfuse shows the disk of an nbdkit as a file. Law: it goes on and goes
// away with its test, also with one whose process is killed.
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { watch } from 'node:fs/promises'
import { join } from 'node:path'
import { temporaryFolder } from './candor.js'
import type { Scope } from './faults.js'
import { orphanage, run } from './loop-disk.js'
import { needs, needsRoot } from './requirements.js'

export interface FuseDisk {
  /** The file in it. */
  readonly image: string
  /** From now on whoever asks the file system for anything waits. */
  stop(): void
  goOn(): void
  /** From now on whoever asks is told of an error. */
  die(): Promise<unknown>
}

const PID_FILE = 'pid'

/** For `test(title, { skip }, …)`, as in requirements.ts. */
export function needsFuse(): string | false {
  return existsSync('/dev/fuse') ? needsRoot('nbdkit', 'nbdfuse', 'setpriv') : needs('/dev/fuse')
}

export async function mountFuse(scope: Scope, sizeMiB: number): Promise<FuseDisk> {
  const home = temporaryFolder()
  scope.after(() => home.remove())
  const folder = join(home.path, 'mounted')
  mkdirSync(folder)
  const pidFile = join(home.path, PID_FILE)
  const ready = fileAppears(home.path, PID_FILE)
  const words = ['--pdeathsig', 'KILL', '--', 'nbdfuse', '--pidfile', pidFile, folder]
  const child = spawn('setpriv', [...words, '[', 'nbdkit', '--exit-with-parent', 'memory', `${sizeMiB}M`, ']'], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  const ended = new Promise((resolve) => child.once('close', resolve))
  const disarm = orphanage('umount -l "$1"; rm -rf "$2"', folder, home.path)
  scope.after(async () => {
    child.kill('SIGCONT')
    run('umount', '-l', folder)
    child.kill('SIGTERM')
    await ended
    disarm()
  })
  await Promise.race([ready, ended.then(() => Promise.reject(new Error('nbdfuse ended before it was ready')))])
  const pid = child.pid ?? 0
  return {
    image: join(folder, 'nbd'),
    stop: () => {
      child.kill('SIGSTOP')
      // A signal is on its way for a while: the process is stopped when the kernel says so.
      while (!/^State:\tT/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))) {}
    },
    goOn: () => child.kill('SIGCONT'),
    die: () => {
      child.kill('SIGKILL')
      return ended
    },
  }
}

/** Resolves when a file of this name was made in the folder. */
async function fileAppears(folder: string, name: string): Promise<void> {
  for await (const { filename } of watch(folder)) if (filename === name) return
}
