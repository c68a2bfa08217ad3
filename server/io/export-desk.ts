// Opens exports and takes them out of service, at start and while the server runs. Law: one change of the set at a time;
// whoever is connected to an export that stays notices nothing.
import { resolve } from 'node:path'
import { closeImage, OpenError, type OpenedImage, openImage } from '../../backends/index.js'
import type { ExportConfig } from '../config.js'
import { type ControlReply, failed } from '../control/export-actions.js'
import { Access } from '../exports/access.js'
import type { ExportPolicy } from '../exports/export-options.js'
import type { MovedExport } from '../exports/open-export.js'
import type { FdStore } from '../fd-store.js'
import { exportCounters, STATE_AT, STATE_FAILED, STATE_SINCE_AT } from '../observe/counters.js'
import type { Observed } from '../observe/family.js'
import type { Log } from '../observe/log.js'
import { BackingDesk, type Outgrowing } from './backing-desk.js'
import { answerOf, type DirectoryEntry, type ExportDirectory, stalledSentence, unlessStalled } from './directory.js'
import { ImageClaims, refuseSharedImages } from './image-claims.js'
import type { IoHost, Removal, RemovalKind } from './io-host.js'
import { Placement } from './placement.js'

/** Images that are opened at once: each waits for a few syncs of its record, which the file system does together. */
const OPENED_AT_ONCE = 32

interface Opened {
  readonly entry: DirectoryEntry
  /** st_dev. */
  readonly device: number
}

export interface ExportDeskOptions {
  readonly directory: ExportDirectory
  readonly log: Log
  /** Starts one more I/O thread; there are never more than `workersMax`. */
  readonly makeHost: () => IoHost
  readonly workersMax: number
  /** What outlives the server is kept, by each image's identity. */
  readonly keepsRecords: boolean
  readonly store?: FdStore | undefined
  /** How long a removal waits for requests in flight. */
  readonly shutdownTimeoutMs: number
  /** What is observed is another now. */
  readonly changed: () => void
}

export class ExportDesk {
  readonly #options: ExportDeskOptions
  readonly #directory: ExportDirectory
  readonly #placement: Placement
  readonly #backings = new BackingDesk()
  readonly #devices = new Map<string, number>()
  readonly #claims = new ImageClaims()
  #last: Promise<unknown> = Promise.resolve()
  #closed = false

  constructor(options: ExportDeskOptions) {
    this.#options = options
    this.#directory = options.directory
    this.#placement = new Placement(options.makeHost, options.workersMax)
  }

  get hosts(): readonly IoHost[] {
    return this.#placement.hosts
  }

  /** File systems that their images could outgrow. */
  get outgrowing(): Outgrowing[] {
    return this.#backings.outgrowing()
  }

  /** What the HTTP thread is told of the exports. */
  observed(mainPulse: Observed['pulse']): Pick<Observed, 'threads' | 'exports' | 'backings'> {
    const served = [...this.#directory].map(({ name, face: { size, readOnly, counters }, config, host: { pulse } }) => {
      const device = this.#backings.deviceOf(name)
      return { name, size, readOnly, path: resolve(config?.path ?? ''), device, counters, pulse }
    })
    const failed = [...this.#directory.failed.values()].map(({ name, config, counters, reason }) => {
      const { path, readOnly } = config
      return { name, size: 0, readOnly, path: resolve(path), device: undefined, counters, pulse: mainPulse, reason }
    })
    const threads = this.hosts.map(({ pulse }) => pulse)
    return { threads, exports: [...served, ...failed], backings: this.#backings.observed() }
  }

  /** Runs `change` when no other one is running. @throws OpenError once this process is on its way out */
  alone<Result>(change: () => Promise<Result>): Promise<Result> {
    const done = this.#last.then(() => {
      if (this.#closed) throw new OpenError('this process is on its way out: ask again')
      return change()
    })
    this.#last = done.catch(() => undefined)
    return done
  }

  /** Lets no further change begin, and waits for the one that runs. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#last
  }

  /** Opens an image and serves it. @throws OpenError with one sentence for the operator */
  async add(config: ExportConfig): Promise<void> {
    this.#refuseTwins(config)
    this.#serve(await this.#open(config))
  }

  /** The same for many, which wait for their storage beside each other and are served in their order. @throws OpenError */
  async addAll(configs: readonly ExportConfig[]): Promise<void> {
    refuseSharedImages(configs)
    for (let at = 0; at < configs.length; at += OPENED_AT_ONCE) {
      const opening = configs.slice(at, at + OPENED_AT_ONCE).map((config) => this.#open(config))
      const opened = await Promise.allSettled(opening)
      for (const each of opened) if (each.status === 'fulfilled') this.#serve(each.value)
      for (const each of opened) if (each.status === 'rejected') throw each.reason
    }
  }

  async #open(config: ExportConfig): Promise<Opened> {
    const { name } = config
    const image = await openImage({ ...config, kept: this.#options.store?.take(config) })
    let host: IoHost
    try {
      if (this.#options.keepsRecords) this.#claims.claim(config, image)
      host = this.place(name, image.device)
    } catch (error) {
      this.#claims.leave(name)
      closeImage(image)
      throw error
    }
    return this.#openIn(host, config, image)
  }

  /** The thread in which one more export of a device will live. */
  place(name: string, device: number): IoHost {
    const { host, shared } = this.#placement.place(device)
    const message = 'shares its thread with exports on other devices: --workers allows no more threads'
    if (shared) this.#options.log.warn({ export: name }, message)
    return host
  }

  /** Goes on with exports of another process, where they were placed. @throws OpenError */
  async takeOver(all: readonly (readonly [host: IoHost, config: ExportConfig, moved: MovedExport])[]): Promise<void> {
    if (this.#options.keepsRecords) for (const [, config, { image }] of all) this.#claims.claim(config, image)
    const opened = all.map(([host, config, moved]) => this.#openIn(host, config, moved.image, moved))
    for (const each of await Promise.all(opened)) this.#serve(each)
  }

  /** What is served, and the devices (st_dev) that it lies on. */
  get places(): { readonly name: string; readonly device: number }[] {
    return [...this.#devices].map(([name, device]) => ({ name, device }))
  }

  async #openIn(host: IoHost, config: ExportConfig, image: OpenedImage, moved?: MovedExport): Promise<Opened> {
    const { name } = config
    try {
      const face = await host.open(config, image, this.#backings.shareFor(name, image.place, host), moved)
      this.#options.store?.keep(config, image.fd, moved !== undefined)
      return { entry: { name, face, access: new Access(config.access), host, config }, device: image.device }
    } catch (error) {
      this.#claims.leave(name)
      this.#backings.left(name)
      this.#placement.leave(host, image.device)
      throw error
    }
  }

  #serve({ entry, device }: Opened): void {
    this.#directory.failed.delete(entry.name)
    this.#directory.add(entry)
    this.#devices.set(entry.name, device)
    this.#options.changed()
  }

  #refuseTwins({ name, path, readOnly }: ExportConfig): void {
    if (this.#directory.holds(name)) {
      throw new OpenError(
        `there is an export '${name}' already: remove it first, or give the image another name, NAME=IMAGE`,
      )
    }
    for (const entry of this.#directory) {
      if (entry.config === undefined || resolve(entry.config.path) !== resolve(path)) continue
      if (readOnly && entry.config.readOnly) continue
      throw new OpenError(`${path} is served already, as export '${entry.name}'`)
    }
  }

  /** Lists an export that is wanted, and cannot be served. */
  fail(config: ExportConfig, reason: string): void {
    const { name } = config
    const known = this.#directory.failed.get(name)
    const counters = known?.counters ?? exportCounters()
    counters[STATE_AT] = STATE_FAILED
    counters[STATE_SINCE_AT] ||= Date.now()
    this.#directory.failed.set(name, { name, config, reason, counters })
    this.#options.log.error({ export: name, reason }, `export ${name} has failed: ${reason}`)
    this.#options.changed()
  }

  /** Forgets an export that has failed; false when there is none. */
  forgetFailed(name: string): boolean {
    const known = this.#directory.failed.delete(name)
    if (known) this.#options.changed()
    return known
  }

  /**
   * Takes an export out of service, as IoHost.remove does. undefined: its thread stands still; it will leave when that
   * goes on.
   */
  async remove(entry: DirectoryEntry, how: RemovalKind): Promise<Removal | undefined> {
    const { name, host } = entry
    this.#directory.replace({ ...entry, leaving: true })
    const removal = host.remove(name, how, this.#options.shutdownTimeoutMs).then((removal) => {
      if (removal.gone) this.#removed(name, host)
      return removal
    })
    return unlessStalled(host, removal)
  }

  #removed(name: string, host: IoHost): void {
    this.#directory.remove(name)
    this.#options.store?.drop(name)
    this.#claims.leave(name)
    this.#backings.left(name)
    this.#placement.leave(host, this.#devices.get(name) ?? 0)
    this.#devices.delete(name)
    this.#options.log.info({ export: name }, `export ${name} is removed`)
    this.#options.changed()
  }

  /** Gives an export another policy, or other rules of access, while it is served. */
  async set(entry: DirectoryEntry, patch: Partial<ExportConfig>): Promise<ControlReply> {
    const { name, host } = entry
    const { onSpace, reserve, readsSuspects, inject, access, limits } = patch
    const policy: Partial<ExportPolicy> = {
      ...(onSpace !== undefined && { onSpace }),
      ...(reserve !== undefined && { reserve }),
      ...(readsSuspects !== undefined && { readsSuspects }),
      ...(limits !== undefined && { limits }),
    }
    const words = inject?.map(({ text }) => text)
    if (words !== undefined) await answerOf(host, { command: 'inject', name, words })
    const reply = await answerOf(host, { command: 'set', name, policy })
    if (reply === undefined) return failed(stalledSentence(name))
    // It may have grown meanwhile, or be on its way out.
    const now = this.#directory.holds(name) ? this.#directory.find(name) : undefined
    if (!reply.ok || now?.config === undefined) return reply
    const rules = access === undefined ? {} : { access: new Access(access) }
    this.#directory.replace({ ...now, ...rules, config: { ...now.config, ...patch } })
    return reply
  }
}
