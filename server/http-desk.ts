// What the HTTP thread is told, by the main thread: which exports there are, and that this thread lives. The pulses of the
// I/O threads are felt here too, so that one which stands still is in the log.
import { closeSync } from 'node:fs'
import type { Config } from './config.js'
import type { ControlReply, ControlRequest } from './control/export-actions.js'
import { type ExportDirectory, pulseAge, STALLED_MS } from './io/directory.js'
import type { ExportDesk } from './io/export-desk.js'
import { type Counters, HEARTBEAT_AT, PULSE_AT } from './observe/counters.js'
import type { Observed } from './observe/family.js'
import { type HttpAddress, type HttpDoor, openHttp } from './observe/http.js'
import type { Log } from './observe/log.js'
import { VERSION } from './version.js'

/** How often the HTTP thread is told that this one lives, and the I/O threads' pulses are felt. */
const HEARTBEAT_MS = 1000

export interface HttpDeskOptions {
  readonly directory: ExportDirectory
  readonly desk: ExportDesk
  readonly log: Log
  readonly answer: (request: ControlRequest) => Promise<ControlReply>
  readonly ioEngine: string
  readonly counters: Counters
  /** Of the main thread. */
  readonly pulse: Counters
}

export class HttpDesk {
  readonly #options: HttpDeskOptions
  #door: HttpDoor | undefined
  #telling: NodeJS.Immediate | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(options: HttpDeskOptions) {
    this.#options = options
  }

  get address(): HttpAddress | undefined {
    return this.#door?.address
  }

  /** The listening socket; negative where there is none. */
  get fd(): number {
    return this.#door?.fd ?? -1
  }

  /** `moved`: another process has listened there, on this descriptor. @throws OpenError */
  async open({ http, httpNames: names, limits }: Config, moved?: HttpAddress & { readonly fd: number }): Promise<void> {
    const { answer, log } = this.#options
    this.#beat()
    this.#timer = setInterval(() => this.#beat(), HEARTBEAT_MS)
    const isSame = moved?.host === http?.host && moved?.port === http?.port
    // Where nobody accepts, nobody is to be let in by the kernel either.
    if (moved !== undefined && !isSame) closeSync(moved.fd)
    if (http === undefined) return
    const { httpConnectionsMax: connectionsMax, httpWatchersMax: watchersMax } = limits
    const fd = isSame ? moved?.fd : undefined
    this.#door = await openHttp(
      { ...http, fd, names, connectionsMax, watchersMax, observed: this.#observed },
      { answer, failed: ({ message }) => log.error({ error: message }, 'the HTTP thread ended: no metrics') },
    )
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.#door?.close()
    this.#door = undefined
  }

  #beat(): void {
    const { counters, pulse, desk, directory, log } = this.#options
    counters[HEARTBEAT_AT] = Date.now()
    pulse[PULSE_AT] = Date.now()
    for (const host of desk.hosts) {
      if (pulseAge(host) <= STALLED_MS) continue
      const exports = [...directory].filter((entry) => entry.host === host).map(({ name }) => name)
      log.limited(`a thread waits for its storage: ${exports.join(', ')}`, { exports, ms: pulseAge(host) })
    }
  }

  get #observed(): Observed {
    const { ioEngine, counters: server, pulse, desk } = this.#options
    return { version: VERSION, ioEngine, server, pulse, ...desk.observed(pulse) }
  }

  /** Exports came or went: told once in a turn, however many. */
  changed(): void {
    if (this.#door === undefined) return
    this.#telling ??= setImmediate(() => {
      this.#telling = undefined
      this.#door?.update(this.#observed)
    })
  }
}
