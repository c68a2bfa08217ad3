// The configuration read again while the server runs: what can be applied is, the rest is told by name. Laws: words that
// are wrong change nothing at all; who is connected to an export that stays notices nothing.

import { OpenError } from '../../backends/index.js'
import type { Config, ServeFlags } from '../config.js'
import { folderExport } from '../config-added.js'
import type { ExportConfig } from '../config-exports.js'
import { keysFor } from '../config-keys.js'
import type { FrontEnds } from '../front-ends.js'
import type { DirectoryEntry, ExportDirectory } from '../io/directory.js'
import type { ExportDesk } from '../io/export-desk.js'
import { LIMITS } from '../limits.js'
import { openTls } from '../nbd/tls.js'
import type { Log, LogOutput } from '../observe/log.js'
import { UsageError } from '../values.js'
import { type ControlReply, failed } from './export-actions.js'
import { removeFrom } from './operator.js'

/** What a reload has come to. */
export interface Reloaded {
  readonly added: string[]
  readonly removed: string[]
  readonly changed: string[]
  readonly failed: { readonly name: string; readonly reason: string }[]
  /** What differs and takes a restart, or the end of sessions; a sentence each. */
  readonly unapplied: string[]
}

export interface ReloadOptions {
  /** The words once more. @throws UsageError */
  readonly read: () => Config
  /** What the server goes by. */
  readonly current: () => Config
  readonly adopt: (config: Config) => void
  /** What is served of folders, with the words for all. */
  readonly images: () => readonly { readonly name: string; readonly path: string }[]
  readonly desk: ExportDesk
  readonly directory: ExportDirectory
  readonly frontEnds: Pick<FrontEnds, 'secureBy' | 'sessionsOf'>
  readonly output: LogOutput
  readonly log: Log
}

/** Policies of an export that hold from one request to the next. */
const LIVE = ['access', 'onSpace', 'reserve', 'readsSuspects', 'inject', 'tls', 'writers', 'limits'] as const
/** What is fixed while an image is open, and the word for it. */
const FIXED = { path: 'image', readOnly: 'read-only', detectsZeroes: 'detect-zeroes' } as const

/** Words of the server alone; those at the top that are for all exports have become the exports' own. */
const SERVER_KEYS = keysFor('server').filter((key) => key !== 'log-level' && !isOfExports(key))

const isOfTls = (key: string) => key.startsWith('tls')
const same = (one: unknown, other: unknown) => JSON.stringify(one) === JSON.stringify(other)

/** Reads the configuration and applies it. A refusal has changed nothing. */
export async function reload(options: ReloadOptions): Promise<ControlReply> {
  const { log, desk, read } = options
  try {
    return await desk.alone(async () => {
      const wanted = read()
      const result = await new Reload(options, wanted).run()
      log.info(result, 'the configuration was read again')
      for (const what of result.unapplied) log.warn({}, `not applied: ${what}`)
      return { ok: true, result }
    })
  } catch (error) {
    if (!(error instanceof UsageError || error instanceof OpenError)) throw error
    const sentence = `the configuration was not read again, and nothing is changed: ${error.message}`
    log.error({}, sentence)
    return failed(sentence)
  }
}

class Reload {
  readonly #options: ReloadOptions
  readonly #before: Config
  readonly #wanted: Config
  /** Keys that take a restart. */
  readonly #differing: readonly string[]
  readonly #result: Reloaded = { added: [], removed: [], changed: [], failed: [], unapplied: [] }

  constructor(options: ReloadOptions, wanted: Config) {
    this.#options = options
    this.#before = options.current()
    const differing = SERVER_KEYS.filter((key) => !same(wordOf(wanted, key), wordOf(this.#before, key)))
    this.#differing = differing
    this.#wanted = differing.some(isOfTls) ? this.#securedAsBefore(wanted) : wanted
  }

  async run(): Promise<Reloaded> {
    const { frontEnds, output, adopt, images, directory } = this.#options
    const [before, wanted] = [this.#before, this.#wanted]
    // Certificates that were renewed under their old names; what cannot be read is refused before anything is changed.
    const { mode, offered } = wanted.tls
    const tls = { ...before.tls, mode, offered }
    if (!this.#differing.some(isOfTls)) frontEnds.secureBy(openTls(tls))
    for (const key of this.#differing) this.#result.unapplied.push(`${key} is another: restart candor for it`)
    if (!same(wanted.logLevel, before.logLevel)) output.level = wanted.logLevel
    await this.#exports()
    const kept = Object.fromEntries(SERVER_KEYS.map((key) => [key, wordOf(before, key)]))
    const { exports, logLevel, flags } = wanted
    const adopted = { ...before, tls, exports, logLevel, flags: { ...flags, ...kept } as ServeFlags }
    adopt(adopted)
    const named = new Set(exports.map(({ name }) => name))
    for (const { name, path } of images()) {
      const entry = directory.holds(name) ? directory.find(name) : undefined
      if (entry !== undefined && !named.has(name)) await this.#change(entry, folderExport(adopted, name, path))
    }
    return this.#result
  }

  /** Credentials that come or go take a restart, and exports do not ask for what is not offered before, or stop to ask. */
  #securedAsBefore(wanted: Config): Config {
    const { directory } = this.#options
    const { tls, flags } = this.#before
    const modeOf = (name: string) => (directory.holds(name) ? directory.find(name)?.config?.tls : undefined) ?? tls.mode
    const exports = wanted.exports.map((each) => ({ ...each, tls: modeOf(each.name) }))
    return { ...wanted, tls, exports, flags: { ...wanted.flags, tls: flags.tls } as ServeFlags }
  }

  async #exports(): Promise<void> {
    const names = new Set(this.#wanted.exports.map(({ name }) => name))
    for (const { name } of this.#before.exports) if (!names.has(name)) await this.#remove(name)
    for (const wanted of this.#wanted.exports) {
      const { directory } = this.#options
      const entry = directory.holds(wanted.name) ? directory.find(wanted.name) : undefined
      if (entry === undefined || entry.leaving) await this.#add(wanted)
      else await this.#change(entry, wanted)
    }
  }

  async #remove(name: string): Promise<boolean> {
    const { desk, directory } = this.#options
    if (desk.forgetFailed(name)) this.#result.removed.push(name)
    const entry = directory.holds(name) ? directory.find(name) : undefined
    if (entry === undefined) return true
    const reply = await removeFrom(desk, entry, 'drain')
    if (!reply.ok) this.#result.failed.push({ name, reason: reply.error })
    const isGone = !directory.holds(name)
    if (isGone) this.#result.removed.push(name)
    return isGone
  }

  async #add(wanted: ExportConfig): Promise<void> {
    const { name } = wanted
    try {
      await this.#options.desk.add(wanted)
      this.#result.added.push(name)
    } catch (error) {
      if (!(error instanceof OpenError)) throw error
      this.#options.desk.fail(wanted, error.message)
      this.#result.failed.push({ name, reason: error.message })
    }
  }

  async #change(entry: DirectoryEntry, wanted: ExportConfig): Promise<void> {
    const { desk, frontEnds } = this.#options
    const { name, config } = entry
    if (config === undefined) return
    const fixed = (Object.keys(FIXED) as (keyof typeof FIXED)[]).filter((key) => !same(config[key], wanted[key]))
    if (fixed.length > 0) {
      const clients = frontEnds.sessionsOf(name)
      if (clients === 0) {
        if (await this.#remove(name)) await this.#add(wanted)
        return
      }
      const words = fixed.map((key) => FIXED[key]).join(' and ')
      const remedy = `${clients} clients are connected: 'candor ctl remove ${name}', then 'candor ctl reload'`
      this.#result.unapplied.push(`export ${name}: ${words} (${remedy})`)
    }
    const live = LIVE.filter((key) => !same(config[key], wanted[key]))
    if (live.length === 0) return
    const reply = await desk.set(entry, Object.fromEntries(live.map((key) => [key, wanted[key]])))
    if (reply.ok) this.#result.changed.push(name)
    else this.#result.failed.push({ name, reason: reply.error })
  }
}

function isOfExports(key: string): boolean {
  return keysFor('export').includes(key) && LIMITS[key] === undefined
}

function wordOf({ flags }: Config, key: string): unknown {
  return (flags as unknown as Readonly<Record<string, unknown>>)[key]
}
