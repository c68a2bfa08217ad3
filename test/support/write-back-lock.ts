// The kernel's write-back is one for the whole machine: tests that presume its usual pace, and tests that change it, take
// turns, whichever process they are in. Law: who changes it is alone, so that what was before is what comes after.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import type { Scope } from './faults.js'
import { orphanage } from './loop-disk.js'

const SETTINGS = ['dirty_writeback_centisecs', 'dirty_expire_centisecs'] as const
const [LOCKED] = SETTINGS
const HURRIED_CENTISECONDS = '20'

let descriptor: number | undefined
let presuming = 0

/** Locks the open file description that flock(1) shares with us, which keeps the lock when it ends. */
function lock(fd: number, mode: '--shared' | '--exclusive'): void {
  execFileSync('flock', [mode, '3'], { stdio: ['ignore', 'ignore', 'inherit', fd] })
}

const pathOf = (setting: string) => `/proc/sys/vm/${setting}`

/** For as long as the scope lasts nobody else changes the pace. Waits for those who do. */
export function presumeUsualWriteBack(scope: Scope): void {
  descriptor ??= openSync(pathOf(LOCKED), 'r')
  if (presuming === 0) {
    lock(descriptor, '--shared')
    assertUsualPace()
  }
  presuming += 1
  scope.after(() => {
    presuming -= 1
    if (presuming > 0 || descriptor === undefined) return
    closeSync(descriptor)
    descriptor = undefined
  })
}

/** Tests that were killed may have left it behind; what fails then says nothing about candor. */
function assertUsualPace(): void {
  for (const setting of SETTINGS) {
    const value = readFileSync(pathOf(setting), 'utf8').trim()
    const remedy = 'set it to its default, which is 500 for writeback and 3000 for expire'
    assert.notEqual(value, HURRIED_CENTISECONDS, `${pathOf(setting)} is ${value}, as a killed test left it: ${remedy}`)
  }
}

/** Makes the kernel's own write-back come after fractions of a second instead of half a minute. Waits until it is alone. */
export function hurryWriteBack(scope: Scope): void {
  presumeUsualWriteBack(scope)
  // The lock is given up before it is had again as another (flock(2)), so that two who want this cannot wait for ever.
  if (descriptor !== undefined) lock(descriptor, '--exclusive')
  for (const setting of SETTINGS) {
    const path = pathOf(setting)
    const before = readFileSync(path, 'utf8').trim()
    writeFileSync(path, HURRIED_CENTISECONDS)
    const disarm = orphanage('echo "$1" > "$2"', before, path)
    scope.after(() => {
      writeFileSync(path, before)
      disarm()
    })
  }
}
