// The operator's mistakes as a table. Law: exit code 1 and one plain line on stderr that names the thing and the remedy,
// with nothing changed.
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { temporaryFolder } from './candor.js'
import { command, lastFirst, type Scope } from './faults.js'

/** Where a mistake is made: a folder with an image in it. */
export interface Scene {
  readonly scope: Scope
  readonly folder: string
  readonly image: string
}

export interface Mistake {
  readonly title: string
  readonly skip?: string | false
  /** Sets the scene and returns the words after `candor`. */
  words(scene: Scene): readonly string[] | Promise<readonly string[]>
  /** Every one of these stands in the sentence; the scene's folder and image are {folder} and {image}. */
  readonly says: readonly string[]
  readonly wrapper?: readonly string[]
}

/** Where `serve` listens when that is not the question. */
export const QUIET = ['--listen', 'tcp:127.0.0.1:0', '--http', 'off']

/** `serve`, told everything else right. */
export function serving({ folder }: Scene, ...words: readonly string[]): string[] {
  return ['serve', '--state-dir', join(folder, 'state'), ...QUIET, ...words]
}

/** One test for each. */
export function testMistakes(what: string, mistakes: readonly Mistake[]): void {
  describe(`mistakes with ${what} are one line on stderr and exit code 1`, { concurrency: 4 }, () => {
    for (const mistake of mistakes) {
      test(mistake.title, { skip: mistake.skip ?? false }, (t) => assertRefused(t, mistake))
    }
  })
}

/** A size of which nothing has to be warned. */
const CONTENT = 'an image'.repeat(64)

async function assertRefused(t: TestContext, mistake: Mistake): Promise<void> {
  const scope = lastFirst(t)
  const { path: folder, remove } = temporaryFolder()
  scope.after(remove)
  const image = join(folder, 'disk.img')
  writeFileSync(image, CONTENT)
  const words = await mistake.words({ scope, folder, image })
  const { code, stdout, stderr } = await command(words, mistake.wrapper)
  assert.equal(code, 1, stderr)
  assert.equal(stdout, '')
  assert.match(stderr, /^candor: [^\n]+\n$/)
  for (const words of mistake.says) {
    const expected = words.replace('{folder}', folder).replace('{image}', image)
    assert.ok(stderr.includes(expected), `${JSON.stringify(expected)} is missing in: ${stderr}`)
  }
  assert.equal(readFileSync(image, 'utf8'), CONTENT)
}
