// The programs in C that stand for guests: compiled when a test needs them.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const SOURCES: Readonly<Record<string, readonly string[]>> = {
  'vhost-load': ['bench/vhost-load.c', 'bench/vhost-driver.c'],
  'vhost-hostile': ['test/support/vhost-hostile.c'],
}

/** Returns the path of the program. */
export function compile(folder: string, program: 'vhost-load' | 'vhost-hostile'): string {
  const path = join(folder, program)
  const sources = SOURCES[program]?.map((name) => fileURLToPath(new URL(`../../../${name}`, import.meta.url))) ?? []
  const flags = ['-O2', '-Wall', '-Wextra', '-Werror', '-std=gnu11', '-D_GNU_SOURCE', '-pthread']
  const { status, stderr } = spawnSync('cc', [...flags, '-o', path, ...sources], { encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  return path
}
