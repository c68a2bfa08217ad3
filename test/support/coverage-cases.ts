// Inputs as files: those of test/fuzz/cases are run again by every test run, and what breaks a law is written down.
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { hex, raw } from './raw-bytes.js'

const CASES = fileURLToPath(new URL('../../../test/fuzz/cases/', import.meta.url))

export interface Case {
  /** TARGET.words-about-it.hex */
  readonly file: string
  readonly target: string
  readonly input: Uint8Array
}

/** Hexadecimal digits, blanks and lines as one likes; what follows a # is for people. */
function parseCase(text: string): Uint8Array {
  return raw(text.replaceAll(/#.*/g, ''))
}

export function readCases(): Case[] {
  const files = readdirSync(CASES).filter((file) => file.endsWith('.hex'))
  return files.sort().map((file) => ({
    file,
    target: file.split('.')[0] ?? '',
    input: parseCase(readFileSync(join(CASES, file), 'utf8')),
  }))
}

export function formatCase(title: string, input: Uint8Array): string {
  return `# ${title}\n${hex(input).replaceAll(/.{64}/g, '$&\n').trimEnd()}\n`
}

/** Writes the input into a new temporary folder, from where it can be moved to test/fuzz/cases; returns its path. */
export function writeCrash(target: string, input: Uint8Array): string {
  const path = join(mkdtempSync(join(tmpdir(), 'candor-fuzz-')), `${target}.crash.hex`)
  writeFileSync(path, formatCase('breaks a law', input))
  return path
}
