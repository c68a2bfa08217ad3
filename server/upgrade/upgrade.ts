// The way from this process to its successor. Laws: until the successor has said that it serves, everything can go on here,
// and does so after any failure; from then on nothing of what was handed over is touched here again.
import { closeSync, writeSync } from 'node:fs'
import { processDoor } from '../../backends/index.js'
import { openFiles, openFilesMax, PER_EXPORT, SPARE } from '../descriptor-room.js'
import type { FrontEnds } from '../front-ends.js'
import { unlessStalled } from '../io/directory.js'
import type { FrozenHost } from '../io/freezing.js'
import type { IoHost } from '../io/io-host.js'
import type { Limits } from '../limits.js'
import type { ReadyGuest } from '../nbd/guest.js'
import { PULSE_SECTIONS, SERVER_SECTIONS, sectionsOf } from '../observe/counter-sections.js'
import type { Counters } from '../observe/counters.js'
import type { Log } from '../observe/log.js'
import { HAND_OVER_FORMAT, type MovedServer } from './messages.js'
import { pack } from './packing.js'
import { Successor, UpgradeFailure } from './successor.js'

/** Descriptors that go with one line. */
const BATCH = 64

/** What a running server gives to be handed over. */
export interface UpgradeSite {
  readonly log: Log
  readonly limits: Limits
  readonly frontEnds: FrontEnds
  readonly hosts: readonly IoHost[]
  readonly exports: readonly { readonly name: string; readonly device: number }[]
  /** Names of exports that take no new requests, and wait for what they have. */
  readonly leaving: readonly string[]
  readonly counters: Counters
  readonly pulses: readonly Counters[]
  /** Listens for HTTP no more. */
  closeHttp(): Promise<void>
  /** Settles when what an operator has asked is answered. */
  closeDoors(): Promise<unknown>
  /** The last lines of the log. */
  endLog(): Promise<void>
  readonly doors: Pick<MovedServer, 'stateDirectory' | 'lockFd' | 'controlFd' | 'http'>
}

type HandedOver = UpgradeSite & Pick<MovedServer, 'stubFd'>

interface Rest {
  readonly host: IoHost
  /** undefined: its thread waits for its storage. */
  readonly frozen: FrozenHost | undefined
}

export class Upgrade {
  readonly #find: () => HandedOver
  /** Guests that are attached by vhost-user come again by themselves. */
  readonly #letsGuestsGo: boolean
  #found: HandedOver | undefined
  /** Clients whose handshake was done meanwhile. */
  readonly kept: ReadyGuest[] = []
  #rest: Rest[] = []
  #pausedAt = 0
  /** How long clients waited. */
  pauseMs = 0

  /** `find` is asked when no export comes or goes any more. */
  constructor(find: () => HandedOver, letsGuestsGo: boolean) {
    this.#find = find
    this.#letsGuestsGo = letsGuestsGo
  }

  get #site(): HandedOver {
    this.#found ??= this.#find()
    return this.#found
  }

  /** Resolves when another process serves. @throws UpgradeFailure when this one goes on instead */
  async run(): Promise<Successor> {
    const { log } = this.#site
    this.#refuseGuests()
    this.#refuseScarcity()
    this.#refuseRemovals()
    const successor = new Successor()
    const { pid } = successor
    log.info({ pid }, 'upgrade: a new process starts')
    try {
      await this.#introduce(successor)
      log.info({ pid }, 'upgrade: the new process is prepared')
      await this.#bringToRest()
      log.info({ pid }, 'upgrade: everything is at rest')
      this.#handOver(successor)
      log.info({ pid }, 'upgrade: everything is handed over')
      await successor.expect('ready', this.#leftMs)
      successor.tell({ kind: 'commit' })
      await successor.expect('serving')
    } catch (error) {
      await successor.end()
      await this.#goOn()
      throw error
    }
    this.pauseMs = performance.now() - this.#pausedAt
    log.info({ pid, ms: Math.round(this.pauseMs) }, `upgrade: process ${pid} serves`)
    return successor
  }

  async #introduce(successor: Successor): Promise<void> {
    const { upgradeTimeoutMs } = this.#site.limits
    const deadline = performance.now() + upgradeTimeoutMs
    const { format, version } = await successor.expect('hello', upgradeTimeoutMs)
    if (format !== HAND_OVER_FORMAT) {
      throw new UpgradeFailure(
        `candor ${version} takes over in format ${format}, and this process hands over in format ${HAND_OVER_FORMAT}: restart it instead`,
      )
    }
    successor.tell({ kind: 'prepare', exports: this.#site.exports })
    await successor.expect('prepared', deadline - performance.now())
  }

  #refuseGuests(): void {
    const { guests } = this.#site.frontEnds.vhostUser
    if (guests === 0 || this.#letsGuestsGo) return
    throw new UpgradeFailure(
      `${guests} guests are attached by vhost-user, and their memory cannot change processes: detach them, or say --force where their monitors come again (reconnect=1)`,
    )
  }

  /** Each connection and image has a second descriptor for a moment: what begins has to come to its end. */
  #refuseScarcity(): void {
    const { frontEnds, exports } = this.#site
    const needed = frontEnds.nbd.connections + exports.length * PER_EXPORT + SPARE
    const room = openFilesMax() - openFiles()
    if (room >= needed) return
    throw new UpgradeFailure(
      `${needed} more files have to be opened for a moment, and the limit has room for ${room}: raise it (prlimit --nofile) or let clients go`,
    )
  }

  /** The new process would serve again what an operator has taken out of service. */
  #refuseRemovals(): void {
    const [name] = this.#site.leaving
    if (name === undefined) return
    throw new UpgradeFailure(
      `export ${name} is leaving, and waits for its storage: mend that, remove it, then ask again`,
    )
  }

  get #leftMs(): number {
    return this.#pausedAt + this.#site.limits.upgradePauseMs - performance.now()
  }

  async #bringToRest(): Promise<void> {
    const { frontEnds, hosts, limits } = this.#site
    // Clients may have come, and files been opened, while the new process started.
    this.#refuseScarcity()
    await this.#settle()
    this.#pausedAt = performance.now()
    frontEnds.vhostUser.isFrozen = true
    this.#refuseGuests()
    frontEnds.nbd.divert((ready) => this.kept.push(ready))
    this.#rest = await Promise.all(
      hosts.map(async (host) => ({ host, frozen: await unlessStalled(host, host.freeze(limits.upgradePauseMs)) })),
    )
    for (const { frozen } of this.#rest) if (frozen?.kind === 'short') throw new UpgradeFailure(frozen.sentence)
    const busy = this.#rest.flatMap(({ frozen }) => (frozen?.kind === 'busy' ? frozen.exports : []))
    if (busy.length === 0 && this.#rest.every(({ frozen }) => frozen?.kind === 'frozen')) return
    const whose = busy.length === 0 ? 'an export' : busy.join(', ')
    throw new UpgradeFailure(
      `the storage of ${whose} kept requests for more than ${limits.upgradePauseMs} ms: try again, or with a longer --upgrade-pause`,
    )
  }

  /** Nobody is to wait for a client that is in the middle of a large WRITE. */
  async #settle(): Promise<void> {
    const { hosts, limits } = this.#site
    const settled = hosts.map((host) => unlessStalled(host, host.settle(limits.upgradePauseMs)))
    const fixed = (await Promise.all(settled)).flatMap((names) => names ?? [])
    if (fixed.length === 0) return
    throw new UpgradeFailure(
      `a WRITE above 1M to ${fixed.join(', ')} has landed in part, another one waits for it, and the rest did not come within ${limits.upgradePauseMs} ms: try again`,
    )
  }

  #handOver(successor: Successor): void {
    const { frontEnds, counters, pulses, doors, stubFd } = this.#site
    const frozen = this.#rest.flatMap(({ frozen }) => (frozen?.kind === 'frozen' ? [frozen] : []))
    const connections = frozen.flatMap(({ connections }) => connections)
    const moving = new Set(connections.map(({ connection }) => connection))
    const { guests, nextConnection } = frontEnds.nbd.known
    const moved: MovedServer = {
      ...doors,
      stubFd,
      listeners: frontEnds.listeners.map(({ wanted, fd }) => ({ wanted, fd })),
      exports: frozen.flatMap(({ exports }) => exports),
      connections,
      // Who has left, and only has not taken the last replies yet, stays here to the end.
      guests: guests.filter(({ connection }) => moving.has(connection)),
      nextConnection,
      counters: sectionsOf(SERVER_SECTIONS, [counters]),
      pulse: sectionsOf(PULSE_SECTIONS, pulses),
    }
    const { bytes, descriptors } = pack(moved)
    const file = fileOf(bytes)
    try {
      const all = [file, ...descriptors]
      for (let at = 0; at < all.length; at += BATCH) {
        const batch = all.slice(at, at + BATCH)
        successor.tell({ kind: 'descriptors', count: batch.length }, batch)
      }
      successor.tell({ kind: 'state' })
    } finally {
      closeSync(file)
    }
  }

  /** As if nothing had been. */
  async #goOn(): Promise<void> {
    const { nbd, vhostUser } = this.#site.frontEnds
    await Promise.all(this.#rest.map(({ host }) => unlessStalled(host, host.goOn())))
    nbd.divert()
    vhostUser.isFrozen = false
    for (const ready of this.kept.splice(0)) nbd.attach(ready)
  }
}

function fileOf(bytes: Uint8Array): number {
  const fd = processDoor.anonymousFile()
  if (fd < 0) throw new UpgradeFailure(`no memory for the state can be had: errno ${-fd}`)
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, bytes.length - at, at)
  return fd
}
