// `--dir`: every image in a folder is served, and what comes and goes is followed. Laws: what is still being copied is left
// alone; an image that is gone is closed only when nobody is connected to it, since its last reference may be candor's own.
import { type FSWatcher, watch } from 'node:fs'
import { readdir, realpath, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { OpenError } from '../../backends/index.js'
import type { ExportConfig } from '../config.js'
import type { ExportDirectory } from '../io/directory.js'
import type { ExportDesk } from '../io/export-desk.js'
import type { Log } from '../observe/log.js'
import { UsageError } from '../values.js'
import { isOfFolder, isRemoved, isTaken, type Known, namesByPath } from './folder-fates.js'
import { type FileStatus, isSameFile, unfitness } from './folder-files.js'
import { removeFrom } from './operator.js'

/** A file that did not change for so long is whole. */
const SETTLE_MS = 3000
/** A change is looked at after so long, with those that came meanwhile. */
const QUIET_MS = 200
/** Network file systems tell of nothing. */
const RESCAN_MS = 5000
/** How long an image that could not be opened is left alone, unless it changes. */
const RETRY_MS = 60_000

export interface ImageFolderOptions {
  readonly path: string
  /** Images that are served at once. */
  readonly imagesMax: number
  readonly desk: ExportDesk
  readonly directory: ExportDirectory
  /** Connections to an export. */
  readonly sessionsOf: (exportName: string) => number
  /** The words that are for all exports, for this one. @throws UsageError */
  readonly configOf: (name: string, path: string) => ExportConfig
  readonly log: Log
}

export class ImageFolder {
  readonly #options: ImageFolderOptions
  readonly #known = new Map<string, Known>()
  /** What was told once of files that are left out. */
  readonly #told = new Set<string>()
  /** What is served, by its path, as it was when this look began. */
  #named: ReadonlyMap<string, string> = new Map()
  #watcher: FSWatcher | undefined
  #timer: NodeJS.Timeout | undefined
  #due = Number.POSITIVE_INFINITY
  #scanning: Promise<void> | undefined
  #closed = false

  constructor(options: ImageFolderOptions) {
    this.#options = { ...options, path: resolve(options.path) }
  }

  /** What is served from here. */
  get images(): { readonly name: string; readonly path: string }[] {
    const paths = [...this.#known.keys()].map((name) => ({ name, path: join(this.#options.path, name) }))
    return paths.filter(({ name, path }) => isOfFolder(this.#options.directory, name, path))
  }

  /** Serves what is there, and follows from then on. @throws OpenError when the folder cannot be read */
  async start(): Promise<void> {
    const { path, log } = this.#options
    try {
      await readdir(path)
    } catch (error) {
      const reason = (error as Error).message
      throw new OpenError(`the folder ${path} cannot be read (${reason}): give an existing one with --dir`)
    }
    try {
      this.#watcher = watch(path, () => this.#scanIn(QUIET_MS))
      this.#watcher.on('error', () => this.#watcher?.close())
    } catch (error) {
      log.warn({ dir: path, error: (error as Error).message }, 'changes of the folder are found by looking alone')
    }
    await this.scan()
  }

  /** Tries again what has failed, and what an operator has removed. */
  forgive(): Promise<void> {
    for (const [name, known] of this.#known) {
      if (isRemoved(this.#options.directory, name, known.fate) || ['failed', 'dismissed', 'named'].includes(known.fate))
        known.fate = 'new'
    }
    return this.scan()
  }

  close(): void {
    this.#closed = true
    clearTimeout(this.#timer)
    this.#watcher?.close()
  }

  /** Not later than another look that is due: a file that never rests keeps no other waiting. */
  #scanIn(delayMs: number): void {
    const due = performance.now() + delayMs
    if (this.#closed || due >= this.#due) return
    this.#due = due
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.#due = Number.POSITIVE_INFINITY
      void this.scan()
    }, delayMs)
    this.#timer.unref()
  }

  /** One look at a time: a folder that hangs holds one thread of the pool, not all of them. */
  scan(): Promise<void> {
    this.#scanning ??= this.#scan().finally(() => {
      this.#scanning = undefined
      this.#scanIn(RESCAN_MS)
    })
    return this.#scanning
  }

  async #scan(): Promise<void> {
    const { path, log } = this.#options
    let names: string[]
    try {
      names = (await readdir(path)).sort()
    } catch (error) {
      log.limited(`the folder ${path} cannot be read: what is served stays`, { error: (error as Error).message })
      return
    }
    const present = new Set(names)
    this.#named = namesByPath(this.#options.directory)
    for (const name of [...this.#known.keys()]) if (!present.has(name)) await this.#gone(name)
    for (const told of this.#told) if (!present.has(told.slice(0, told.indexOf('/')))) this.#told.delete(told)
    for (const name of names) {
      if (this.#closed) return
      await this.#look(name)
    }
  }

  async #look(name: string): Promise<void> {
    const path = join(this.#options.path, name)
    const status = await stat(path).catch(() => undefined)
    const known = this.#known.get(name)
    if (known !== undefined && (status === undefined || !isSameFile(known.status, status))) await this.#gone(name)
    const left = this.#known.get(name)
    if (status === undefined || (left?.fate === 'leaving' && !isSameFile(left.status, status))) return
    const now = performance.now()
    const file = this.#seen(name, status, now)
    const isDue = file.fate === 'new' || (file.fate === 'failed' && now - file.triedAt > RETRY_MS)
    if (!isDue || !this.#isWhole(file, now)) return
    const unfit = await unfitness(name, path, status)
    if (unfit === undefined) return this.#serve(name, path, file)
    file.fate = 'unfit'
    this.#leaveOut(name, unfit)
  }

  #seen(name: string, status: FileStatus, now: number): Known {
    const file = this.#known.get(name) ?? { status, since: now, fate: 'new', triedAt: Number.NEGATIVE_INFINITY }
    if (file.status.size !== status.size || file.status.mtimeMs !== status.mtimeMs) {
      file.since = now
      if (file.fate === 'unfit') file.fate = 'new'
    }
    file.status = status
    // It was put back.
    if (file.fate === 'leaving') file.fate = 'served'
    if (isRemoved(this.#options.directory, name, file.fate)) file.fate = 'dismissed'
    this.#known.set(name, file)
    return file
  }

  /** Nobody has written to it for a while: by its own time, or as long as it was looked at. */
  #isWhole({ status, since }: Known, now: number): boolean {
    if (now - since >= SETTLE_MS) return true
    const age = Date.now() - status.mtimeMs
    if (age >= SETTLE_MS) return true
    this.#scanIn(SETTLE_MS)
    return false
  }

  #leaveOut(name: string, why: string): void {
    const { path, log } = this.#options
    const told = `${name}/${why}`
    if (this.#told.has(told)) return
    this.#told.add(told)
    log.limited(`left out of ${path}: ${why}`, { file: name })
  }

  async #serve(name: string, path: string, file: Known): Promise<void> {
    const { desk, directory, configOf, imagesMax, log } = this.#options
    if (isOfFolder(directory, name, path)) file.fate = 'served'
    if (file.fate === 'served') return
    const own = this.#named.get(path) ?? this.#named.get(await realpath(path).catch(() => path))
    const isNamed = own !== undefined && directory.holds(own)
    if (isNamed) file.fate = 'named'
    if (isNamed && own === name) return
    const all = [...this.#known.values()]
    if (isNamed || all.some(({ fate, status }) => isTaken(fate) && isSameFile(status, file.status))) {
      return this.#leaveOut(name, 'a file that is served under another name')
    }
    const others = all.filter(({ fate }) => fate === 'served' || fate === 'leaving')
    if (others.length >= imagesMax) return this.#leaveOut(name, `more than ${imagesMax} images (--dir-images-max)`)
    if (directory.holds(name)) return this.#leaveOut(name, 'a name that another export has')
    file.triedAt = performance.now()
    try {
      const config = configOf(name, path)
      try {
        await desk.alone(() => desk.add(config))
        file.fate = 'served'
        log.info({ export: name, path }, `export ${name} came with its image`)
      } catch (error) {
        if (!(error instanceof OpenError) || this.#closed) throw error
        desk.fail(config, error.message)
        file.fate = 'failed'
      }
    } catch (error) {
      if (!(error instanceof OpenError || error instanceof UsageError)) throw error
      this.#leaveOut(name, error.message)
    }
  }

  /** Its path leads to another file now, or to none. */
  async #gone(name: string): Promise<void> {
    const { path, desk, directory, sessionsOf, log } = this.#options
    const fate = this.#known.get(name)?.fate
    if (fate === 'failed') desk.forgetFailed(name)
    if (!isOfFolder(directory, name, join(path, name))) {
      this.#known.delete(name)
      return
    }
    if (fate === 'leaving') return
    const clients = sessionsOf(name)
    if (clients > 0) {
      const known = this.#known.get(name)
      if (known !== undefined) known.fate = 'leaving'
      const rule = `put it back, or say 'candor ctl remove ${name}' when what is on it is safe`
      log.error({ export: name, clients }, `the image of export ${name} is gone from its folder under clients: ${rule}`)
      return
    }
    await this.#withdraw(name)
  }

  async #withdraw(name: string): Promise<void> {
    const { desk, directory, log } = this.#options
    try {
      await desk.alone(async () => {
        const entry = directory.holds(name) ? directory.find(name) : undefined
        const reply = entry === undefined ? undefined : await removeFrom(desk, entry, 'moved')
        if (reply?.ok === false) log.error({ export: name }, reply.error)
      })
      this.#known.delete(name)
    } catch (error) {
      if (!(error instanceof OpenError)) throw error
    }
  }
}
