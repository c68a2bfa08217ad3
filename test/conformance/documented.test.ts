// docs/protocol.md against the sources: the tests that it names, the words that it has to hold, the limits it tells.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import * as nbd from 'nbd-protocol'
import { formatLimit, LIMITS } from '../../server/limits.js'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const page = readFileSync(join(root, 'docs/protocol.md'), 'utf8')
const folder = join(root, 'test/conformance')

/** Tests as the page names them: the file, and the title behind the specification's heading. */
function titlesOf(file: string): string[] {
  const source = readFileSync(join(folder, file), 'utf8')
  const titles = [...source.matchAll(/\btest\(\s*'("[^']*)'/g)].map((match) => match[1] ?? '')
  return titles.map((title) => `${file.replace('.test.ts', '')}: ${title.replace(/^.*?": /, '')}`)
}

const written = new Set(
  readdirSync(folder)
    .filter((file) => file.endsWith('.test.ts'))
    .flatMap(titlesOf),
)
const named = new Set([...page.matchAll(/`([a-z-]+)` \*([^*]+)\*/g)].map(([, file, title]) => `${file}: ${title}`))

describe('docs/protocol.md', () => {
  test('names only tests that there are', () => {
    assert.ok(named.size > 80)
    assert.deepEqual(
      [...named].filter((title) => !written.has(title)),
      [],
    )
  })

  test('names only tests of other folders that there are', () => {
    const others = [...page.matchAll(/`([a-z-]+\/[a-z-]+)` \*([^*]+)\*/g)]
    assert.ok(others.length >= 5)
    for (const [, file = '', title = ''] of others) {
      assert.ok(readFileSync(join(root, 'test', `${file}.test.ts`), 'utf8').includes(title), `${file}: ${title}`)
    }
    assert.ok(!page.includes('*pending*'), 'no row is left open')
  })

  test('names every test of this folder', () => {
    assert.deepEqual(
      [...written].filter((title) => !named.has(title)),
      [],
    )
  })

  test('has a row for every option, reply, flag, command, state and error', () => {
    const kinds = /^NBD_(?:(?:FLAG|OPT|REP|INFO|CMD|REPLY|STATE)_\w+|E[A-Z]+)$/
    const words = Object.keys(nbd).filter((word) => kinds.test(word) && !/_MAGIC$|^NBD_REP_FLAG_ERROR$/.test(word))
    assert.ok(words.length > 70)
    const rows = page.split('\n').filter((line) => line.startsWith('| '))
    const inRow = (word: string) => rows.some((row) => row.split(' | ')[0]?.includes(`\`${word}\``))
    assert.deepEqual(
      words.filter((word) => !inRow(word)),
      [],
    )
  })

  test('tells every limit with its default', () => {
    for (const [flag, rule] of Object.entries(LIMITS)) {
      assert.ok(page.includes(`| \`--${flag}\` | ${formatLimit(rule)} |`), `--${flag}, ${formatLimit(rule)}`)
    }
  })
})
