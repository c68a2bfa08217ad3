// The rules of the house as a test: who may import whom, how long things may get, which words stay out.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
const FOLDERS = ['protocol', 'backends', 'server', 'bench', 'examples', 'test', 'tools']
const LEFT_OUT = new Set(['node_modules', 'dist', 'build'])
const FILE_LINES_MAX = 250
const FUNCTION_LINES_MAX = 50

interface Source {
  /** Relative to the project's root. */
  readonly path: string
  readonly text: string
  readonly imports: readonly string[]
}

function* filesBelow(folder: string, pattern: RegExp): IterableIterator<string> {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory() && !LEFT_OUT.has(entry.name)) yield* filesBelow(path, pattern)
    else if (entry.isFile() && pattern.test(entry.name)) yield path
  }
}

/** What a module names in its imports: a package, or a file of the project relative to its root. */
function importsOf(path: string, text: string): string[] {
  const names = [
    ...text.matchAll(/^(?:import|export)\b[^'"]*?from '([^']+)'|\bimport\('([^']+)'\)|^import '([^']+)'/gm),
  ]
  return names
    .map((match) => match[1] ?? match[2] ?? match[3] ?? '')
    .map((name) => (name.startsWith('.') ? relative(root, resolve(dirname(path), name)) : name))
}

function readSources(): Source[] {
  return FOLDERS.flatMap((folder) => [...filesBelow(join(root, folder), /\.ts$/)]).map((path) => {
    const text = readFileSync(path, 'utf8')
    return { path: relative(root, path), text, imports: importsOf(path, text) }
  })
}

const sources = readSources()

function offenders(inside: RegExp, forbidden: (name: string, path: string) => boolean): string[] {
  return sources
    .filter(({ path }) => inside.test(path))
    .flatMap(({ path, imports }) => imports.filter((name) => forbidden(name, path)).map((name) => `${path}: ${name}`))
}

/** Packages that have one room in the house. */
const ROOMS: Readonly<Record<string, RegExp>> = {
  yargs: /^server\/(main|config|cli\/[^/]+)\.ts$/,
  'yargs/helpers': /^server\/main\.ts$/,
  'prom-client': /^server\/observe\/metrics\.ts$/,
  'fs-ext': /^backends\/sparse-file\//,
  fastify: /^server\/observe\/http-[a-z]+\.ts$/,
  pino: /^server\/observe\/log\.ts$/,
  yaml: /^server\/config-file\.ts$/,
}

describe('imports', () => {
  test('the reader of imports finds what it should', () => {
    const text =
      "import a from 'x'\nimport {\n  b,\n} from './y.js'\nexport * from 'z'\nimport 'w'\nawait import('v')\n"
    assert.deepEqual(importsOf(join(root, 'server/q.ts'), text), ['x', 'server/y.js', 'z', 'w', 'v'])
    assert.ok(sources.length > 50)
  })

  test('each protocol package imports nothing but itself', () => {
    for (const folder of ['protocol/nbd/', 'protocol/vhost-user/']) {
      assert.deepEqual(
        offenders(new RegExp(`^${folder}`), (name) => !name.startsWith(folder)),
        [],
      )
    }
  })

  test('backends import neither protocol nor server', () => {
    const forbidden = (name: string) =>
      /^(nbd|vhost-user)-protocol$/.test(name) || /^(server|protocol|test|bench)\//.test(name)
    assert.deepEqual(offenders(/^backends\//, forbidden), [])
  })

  test('the server reaches backends through their door, and the protocol by its name', () => {
    const door = new Set(['backends/index.js', 'backends/backend.js'])
    const forbidden = (name: string) =>
      (name.startsWith('backends/') && !door.has(name)) || /^(protocol|test|bench)\//.test(name)
    assert.deepEqual(offenders(/^server\//, forbidden), [])
  })

  test('every package has its room', () => {
    const forbidden = (name: string, path: string) => ROOMS[name] !== undefined && !ROOMS[name].test(path)
    assert.deepEqual(offenders(/^(protocol|backends|server)\//, forbidden), [])
  })

  test('the addon is loaded by one file', () => {
    const loaders = sources.filter(({ path, text }) => /file_io\.node/.test(text) && !path.startsWith('test/'))
    assert.deepEqual(
      loaders.map(({ path }) => path),
      ['backends/native/file-io.ts'],
    )
  })

  test('only main ends the process', () => {
    const enders = sources.filter(({ path, text }) => /process\.exit\(/.test(text) && path.startsWith('server/'))
    assert.deepEqual(
      enders.map(({ path }) => path),
      ['server/main.ts'],
    )
  })
})

/** Lengths of functions and methods, by indentation: the formatter has put the closing brace under the start. */
function longFunctions(text: string): string[] {
  const lines = text.split('\n')
  const found: string[] = []
  for (const [index, line] of lines.entries()) {
    const head = /^(\s*)(?:export )?(?:async )?(?:function\b|(?:static |async |get |set )*#?\w+\(.*\{$)/.exec(line)
    if (head === null || /^\s*(?:if|for|while|switch|return|describe|test|class|interface)\b/.test(line)) continue
    const length = lines.slice(index).indexOf(`${head[1]}}`) + 1
    if (length > FUNCTION_LINES_MAX) found.push(`${line.trim()} (${length} lines)`)
  }
  return found
}

describe('lengths', () => {
  test(`no file has more than ${FILE_LINES_MAX} lines`, () => {
    const files = FOLDERS.concat('backends/native').flatMap((folder) => [
      ...filesBelow(join(root, folder), /\.(?:ts|cjs|mjs|c|h)$/),
    ])
    const long = files.filter((path) => readFileSync(path, 'utf8').split('\n').length - 1 > FILE_LINES_MAX)
    assert.deepEqual(
      long.map((path) => relative(root, path)),
      [],
    )
  })

  test(`no function has more than ${FUNCTION_LINES_MAX} lines`, () => {
    const body = '  x\n'.repeat(FUNCTION_LINES_MAX)
    assert.equal(longFunctions(`function f() {\n${body}}`).length, 1)
    const long = sources.flatMap(({ path, text }) => longFunctions(text).map((name) => `${path}: ${name}`))
    assert.deepEqual(long, [])
  })
})

/** Words with what to say instead. */
const WORDS: Readonly<Record<string, string>> = {
  handle_: 'cookie (the spec renamed it)',
  'ts-ignore': 'a type',
  FIXME: 'an issue',
  XXX: 'an issue',
}

describe('words', () => {
  test('file names are kebab-case nouns, and none is a drawer for everything', () => {
    const odd = sources
      .map(({ path }) => path)
      .filter((path) => !/^[a-z0-9-]+(\.test|\.long|\.d)?\.ts$/.test(path.split('/').at(-1) ?? ''))
    assert.deepEqual(odd, [])
    const drawers = sources.filter(({ path }) => /(?:^|[/-])(?:utils?|helpers?|common|misc)(?:[/.-]|$)/.test(path))
    assert.deepEqual(
      drawers.map(({ path }) => path),
      [],
    )
  })

  test('every file opens with its duty', () => {
    const silent = sources.filter(({ text }) => !/^(?:#!.*\n)?\/\/ \S/.test(text))
    assert.deepEqual(
      silent.map(({ path }) => path),
      [],
    )
  })

  test('banned words have their replacements', () => {
    const found = sources
      .filter(({ path }) => path !== 'test/house.test.ts')
      .flatMap(({ path, text }) =>
        Object.entries(WORDS)
          .filter(([word]) => text.includes(word))
          .map(([word, instead]) => `${path}: '${word}'; say ${instead}`),
      )
    assert.deepEqual(found, [])
  })

  test('a TODO carries the number of an issue', () => {
    const found = sources.filter(({ path, text }) => path !== 'test/house.test.ts' && /TODO(?! #\d)/.test(text))
    assert.deepEqual(
      found.map(({ path }) => path),
      [],
    )
  })

  test('the lock file names no download address', () => {
    assert.doesNotMatch(readFileSync(join(root, 'package-lock.json'), 'utf8'), /"resolved": "https?:/)
  })
})
