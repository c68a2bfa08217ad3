// The kernel's write-back is one for the whole machine, and what these tests see depends on its pace: none of its own, or
// at once. Law: who sets it is alone, whichever process that is, and what was before is what comes after.
import { execFileSync } from 'node:child_process'
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import type { Scope } from './faults.js'
import { orphanage } from './loop-disk.js'

const FOLDER = '/proc/sys/vm'
const CALM = '360000'
const HURRIED = '20'
/** In hundredths of a second: how often the kernel looks for pages to write back, and from which age it takes them. */
const DEFAULTS = { dirty_writeback_centisecs: '500', dirty_expire_centisecs: '3000' } as const

let users = 0

function setPace(value: string): void {
  for (const name of Object.keys(DEFAULTS)) writeFileSync(`${FOLDER}/${name}`, value)
}

/** Until the scope ends the kernel writes nothing back by itself, however slow the machine is. Waits for its turn. */
export function calmWriteBack(scope: Scope): void {
  users += 1
  if (users === 1) takeTurn(scope)
  scope.after(() => {
    users -= 1
  })
}

function takeTurn(scope: Scope): void {
  const descriptor = openSync(`${FOLDER}/dirty_writeback_centisecs`, 'r')
  scope.after(() => closeSync(descriptor))
  // flock(1) locks the open file description that it shares with us, which keeps the lock when it ends.
  execFileSync('flock', ['--exclusive', '3'], { stdio: ['ignore', 'ignore', 'inherit', descriptor] })
  for (const [name, byDefault] of Object.entries(DEFAULTS)) {
    const path = `${FOLDER}/${name}`
    const found = readFileSync(path, 'utf8').trim()
    // It is our turn, so that a pace of ours is what a killed test has left behind.
    const before = found === CALM || found === HURRIED ? byDefault : found
    const disarm = orphanage('echo "$1" > "$2"', before, path)
    scope.after(() => {
      writeFileSync(path, before)
      disarm()
    })
  }
  setPace(CALM)
}

/** From now on, until the scope of the turn ends, write-back comes by itself after fractions of a second. */
export function hurryWriteBack(): void {
  if (users === 0) throw new Error('only who has called calmWriteBack may change the pace')
  setPace(HURRIED)
}
