// The configuration file: YAML to the words that the command line would have had. Law: whatever is wrong is said with
// file, line and key before anything is opened, and a file that is half right is not used at all.
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { isMap, isScalar, isSeq, LineCounter, type Node, type Pair, parseDocument, type YAMLMap } from 'yaml'
import type { ServeFlags } from './config.js'
import { KEYS, type KeyRule, keysFor } from './config-keys.js'
import { UsageError } from './values.js'

const FILE_BYTES_MAX = 4 << 20

type Words = Record<string, string | boolean | string[]>

class FileReader {
  readonly #path: string
  readonly #lines: LineCounter
  readonly words: Words = {}
  readonly images: string[] = []
  readonly readOnly: string[] = []
  readonly writable: string[] = []
  readonly exportWords: Record<string, Record<string, string>> = {}

  constructor(path: string, lines: LineCounter) {
    this.#path = path
    this.#lines = lines
  }

  #place(node: unknown): string {
    const at = (node as Node | null)?.range?.[0]
    return at === undefined ? this.#path : `${this.#path}:${this.#lines.linePos(at).line}`
  }

  #refuse(node: unknown, sentence: string): UsageError {
    return new UsageError(`${this.#place(node)}: ${sentence}`)
  }

  readServer(map: YAMLMap): void {
    for (const pair of map.items) {
      if (this.#name(pair) === 'exports') this.#readExports(pair)
      else this.#readKey(pair, 'server', undefined)
    }
  }

  #name({ key }: Pair): string {
    if (isScalar(key)) return String(key.value)
    throw this.#refuse(key, 'a key has to be a word')
  }

  #readExports({ key, value }: Pair): void {
    if (!isMap(value)) throw this.#refuse(key, "'exports' has to be a table of names, each with its image")
    for (const pair of value.items) this.#readExport(pair)
  }

  #readExport(pair: Pair): void {
    const name = this.#name(pair)
    if (/[=/]/.test(name) || name === '')
      throw this.#refuse(pair.key, `'${name}' is no name for an export: leave out = and /`)
    if (!isMap(pair.value))
      throw this.#refuse(pair.key, `export '${name}' has to be a table with its image: image: PATH`)
    const image = pair.value.get('image')
    if (typeof image !== 'string') throw this.#refuse(pair.key, `export '${name}' has no image: add image: PATH`)
    this.images.push(`${name}=${this.#besideFile(image)}`)
    for (const inner of pair.value.items) if (this.#name(inner) !== 'image') this.#readKey(inner, 'export', name)
  }

  /** A relative path is the file's neighbour, wherever the server was started. */
  #besideFile(path: string): string {
    return resolve(dirname(this.#path), path)
  }

  #readKey(pair: Pair, place: 'server' | 'export', exportName: string | undefined): void {
    const key = this.#name(pair)
    const known = keysFor(place)
    const rule = KEYS[key]
    if (rule === undefined || !known.includes(key)) throw this.#refuse(pair.key, this.#unknown(key, place, known))
    const what = `${this.#place(pair.key)}: ${key}`
    if (rule.kind === 'boolean') return this.#flag(key, this.#truth(pair, what), exportName)
    const given = this.#wordsOf(pair, rule, what)
    const words = key === 'dir' ? given.map((word) => this.#besideFile(word)) : given
    for (const word of words) this.#check(rule, word, what)
    this.#add(key, rule, words, exportName)
  }

  #unknown(key: string, place: 'server' | 'export', known: readonly string[]): string {
    const elsewhere = KEYS[key] !== undefined
    if (elsewhere)
      return `'${key}' belongs ${place === 'server' ? 'under an export' : 'to the top of the file'}, not here`
    const nearest = [...known, ...(place === 'server' ? ['exports'] : [])].sort(
      (a, b) => distance(a, key) - distance(b, key),
    )
    return `there is no key '${key}' here: did you mean '${nearest[0]}'?`
  }

  #truth({ key, value }: Pair, what: string): boolean {
    if (isScalar(value) && typeof value.value === 'boolean') return value.value
    throw this.#refuse(key, `${what.slice(what.lastIndexOf(' ') + 1)} has to be true or false`)
  }

  #wordsOf({ key, value }: Pair, rule: KeyRule, what: string): string[] {
    const nodes = rule.kind === 'words' && isSeq(value) ? value.items : [value]
    return nodes.map((node) => {
      const scalar = isScalar(node) ? node.value : undefined
      if (typeof scalar === 'string' || typeof scalar === 'number') return String(scalar)
      throw this.#refuse(key, `${what.slice(what.lastIndexOf(' ') + 1)} has to be written as ${rule.example}`)
    })
  }

  #check(rule: KeyRule, word: string, what: string): void {
    try {
      rule.check(word, what)
    } catch (error) {
      if (!(error instanceof UsageError) || error.message.startsWith(what)) throw error
      throw new UsageError(`${what}: ${error.message.replace(/^--\S+ is /, '')}`)
    }
  }

  #flag(key: string, value: boolean, exportName: string | undefined): void {
    if (exportName === undefined) this.words[key] = value
    else (value ? this.readOnly : this.writable).push(exportName)
  }

  #add(key: string, rule: KeyRule, words: readonly string[], exportName: string | undefined): void {
    if (rule.apart !== undefined && exportName !== undefined) {
      this.exportWords[exportName] = { ...this.exportWords[exportName], [key]: words[0] ?? '' }
      return
    }
    const scoped = exportName === undefined ? words : words.map((word) => `${exportName}=${word}`)
    const isList = rule.kind === 'words' || (rule.place === 'both' && rule.apart === undefined)
    const before = this.words[key]
    this.words[key] = isList ? [...(Array.isArray(before) ? before : []), ...scoped] : (words[0] ?? '')
  }
}

/** Steps from one word to another: letters put in, left out or changed. */
function distance(one: string, other: string): number {
  let row = Array.from({ length: other.length + 1 }, (_, index) => index)
  for (const [at, letter] of [...one].entries()) {
    const next = [at + 1]
    for (const [index, wanted] of [...other].entries()) {
      const changed = (row[index] ?? 0) + (letter === wanted ? 0 : 1)
      next.push(Math.min(changed, (row[index + 1] ?? 0) + 1, (next[index] ?? 0) + 1))
    }
    row = next
  }
  return row.at(-1) ?? 0
}

function textOf(path: string): string {
  try {
    const text = readFileSync(path, 'utf8')
    if (text.length <= FILE_BYTES_MAX) return text
  } catch (error) {
    throw new UsageError(`--config ${path} cannot be read: ${(error as Error).message}`)
  }
  throw new UsageError(`--config ${path} has more than ${FILE_BYTES_MAX} bytes: that is no configuration`)
}

/** The command line's word for all goes before the file's for one. */
function withoutKeysOf(spoken: object, words: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(words).filter(([key]) => !Object.hasOwn(spoken, key)))
}

/** The words of a file with those of the command line before them. @throws UsageError naming file, line and key */
export function withConfigFile(flags: ServeFlags): ServeFlags {
  const { config: path, ...given } = flags
  if (path === undefined) return flags
  const lines = new LineCounter()
  const document = parseDocument(textOf(path), { lineCounter: lines, prettyErrors: false, uniqueKeys: true })
  const [fault] = document.errors
  if (fault !== undefined) {
    throw new UsageError(`${path}:${lines.linePos(fault.pos[0]).line}: this is no YAML: ${fault.message}`)
  }
  const reader = new FileReader(path, lines)
  if (!isMap(document.contents)) throw new UsageError(`${path} is no table of keys: see docs/configuration.md`)
  reader.readServer(document.contents)
  const images = [...reader.images, ...flags.images]
  const readOnly = [...reader.readOnly, ...(flags['read-only-export'] ?? [])]
  const spoken = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  const writable = spoken['read-only'] === true ? [] : reader.writable
  const apart = {
    ...(readOnly.length > 0 && { 'read-only-export': readOnly }),
    ...(writable.length > 0 && { writable }),
  }
  const exportWords = Object.fromEntries(
    Object.entries(reader.exportWords).map(([name, words]) => [name, withoutKeysOf(spoken, words)]),
  )
  return { ...reader.words, ...spoken, images, exportWords, ...apart }
}
