// Upgrades as an operator asks for them: one at a time, each with an answer. Law: a process that was succeeded is never
// asked to stop as if it were still the server.
import { setTimeout as pause } from 'node:timers/promises'
import { type ControlReply, failed } from '../control/export-actions.js'
import type { ExportDesk } from '../io/export-desk.js'
import type { ServiceManager } from '../service-manager.js'
import type { Channel } from './channel.js'
import { type Leaving, leave } from './leaving.js'
import type { ToPredecessor, ToSuccessor } from './messages.js'
import type { Successor } from './successor.js'
import { Upgrade, type UpgradeSite } from './upgrade.js'

export interface UpgradingOptions {
  readonly manager: ServiceManager | undefined
  /** Nobody was succeeded by this process. */
  readonly isFirst: boolean
  readonly site: () => UpgradeSite
  /** No export comes or goes meanwhile, nor ever again in a process that was succeeded. */
  readonly desk: Pick<ExportDesk, 'alone' | 'close'>
}

/** What an operator hears of an upgrade. */
export interface UpgradeResult {
  readonly pid: number
  /** How long clients waited. */
  readonly pauseMs: number
  /** How long all of it took. */
  readonly ms: number
}

/** How long a process that stays may take to hear who serves. */
const STUB_PATIENCE_MS = 1000
/** Whose child this process was made; orphans have another parent later. */
const FIRST_PARENT = process.ppid

export class Upgrading {
  readonly #options: UpgradingOptions
  #running: Promise<Successor> | undefined
  #stopped = false
  #left: Promise<void> = Promise.resolve()
  #succeed: (successor: Successor) => void = () => {}
  /** Resolves when another process serves. */
  readonly succeeded: Promise<Successor>
  #begun: () => void = () => {}
  /** Settles when this process has all that it is to have: what it has not yet could not be handed over. */
  readonly #complete = new Promise<void>((resolve) => {
    this.#begun = resolve
  })
  /** To a process that stays, and waits for the end of the service. */
  stub: Channel<ToSuccessor, ToPredecessor> | undefined

  constructor(options: UpgradingOptions) {
    this.#options = options
    this.succeeded = new Promise((resolve) => {
      this.#succeed = resolve
    })
  }

  /** The server has begun. */
  begun(): void {
    this.#begun()
  }

  /** Hands everything over, or says why that was not done. `letsGuestsGo`: those of vhost-user come again by themselves. */
  async ask(letsGuestsGo = false): Promise<ControlReply> {
    await this.#complete
    if (this.#stopped) return failed('the server stops: there is nothing to upgrade')
    if (this.#running !== undefined) return failed('an upgrade is under way already: wait for its end')
    const { manager, site } = this.#options
    const { log, exports } = site()
    const upgrade = new Upgrade(() => ({ ...site(), stubFd: this.stub?.fd }), letsGuestsGo)
    manager?.reloading('handing over to a new process')
    const began = performance.now()
    let successor: Successor
    try {
      this.#running = this.#run(upgrade)
      successor = await this.#running
    } catch (error) {
      this.#running = undefined
      const { message } = error as Error
      log.error({ error: message }, 'the upgrade came to nothing, and this process goes on')
      manager?.reloaded(`serving ${exports.map(({ name }) => name).join(', ')}`)
      return failed(`not upgraded, and the old process goes on: ${message}`)
    }
    await this.#tellStub(successor.pid)
    this.#leave(successor, upgrade.kept)
    this.#succeed(successor)
    const { pauseMs } = upgrade
    const result: UpgradeResult = { pid: successor.pid, pauseMs, ms: performance.now() - began }
    return { ok: true, result }
  }

  #run(upgrade: Upgrade): Promise<Successor> {
    const { desk } = this.#options
    return desk.alone(async () => {
      const successor = await upgrade.run()
      // Before the next change begins, which is the successor's to make: here it would touch images that are served there.
      void desk.close()
      return successor
    })
  }

  /** Settles when no upgrade is under way; true when this process is not the server any more. No other one is begun. */
  async stop(): Promise<boolean> {
    this.#stopped = true
    try {
      return (await this.#running) !== undefined
    } catch {
      return false
    }
  }

  /** Settles when the process that stays knows who serves, and passes no signal to this one any more. */
  async #tellStub(pid: number): Promise<void> {
    const { stub } = this
    if (stub === undefined || stub.ended) return
    const hearAsBefore = stub.onMessage
    const noted = new Promise<void>((resolve) => {
      stub.onMessage = (message) => (message.kind === 'noted' ? resolve() : hearAsBefore?.(message))
    })
    stub.mention({ kind: 'successor', pid })
    await Promise.race([noted, pause(STUB_PATIENCE_MS, undefined, { ref: false })])
  }

  /** Settles when nobody needs this process any more. */
  get left(): Promise<void> {
    return this.#left
  }

  /** Those who wait for this very process would take its end for the service's, and cannot be told otherwise. */
  get stays(): boolean {
    return this.#options.isFirst && this.#options.manager?.isThere !== true && (process.pid === 1 || FIRST_PARENT === 1)
  }

  #leave(successor: Successor, kept: Leaving['kept']): void {
    const { manager, site } = this.#options
    const { log, frontEnds, hosts, closeHttp, closeDoors, endLog } = site()
    const announce = (pid: number) => {
      manager?.succeeded(pid)
      return this.stays
    }
    this.#left = leave(successor, { log, frontEnds, hosts, kept, closeHttp, closeDoors, endLog, announce })
  }
}
