// The connections that a thread serves, of both front ends, by the numbers that the main thread gave them.
import { setTimeout as pause } from 'node:timers/promises'
import type { Export } from '../exports/export.js'
import { Connection } from '../nbd/connection.js'

const SETTLE_POLL_MS = 1

/** A connection of either front end. */
export interface Served {
  readonly served: Export
  readonly inFlight: number
  /** Bytes that the peer has not taken yet. */
  readonly backlog: number
  readonly isBusy: boolean
  drain(): void
  destroy(): void
}

export class HostConnections extends Map<number, Served> {
  of(entry: Export): Served[] {
    return [...this.values()].filter(({ served }) => served === entry)
  }

  get nbd(): Connection[] {
    return [...this.values()].filter((each) => each instanceof Connection)
  }

  /** Bytes of replies that peers have not taken yet. */
  get backlog(): number {
    return [...this.values()].reduce((bytes, { backlog }) => bytes + backlog, 0)
  }

  /** Ends those whose peer has gone: one that is not read, since it has as much in flight as it may, would not hear of it. */
  look(): void {
    for (const each of this.nbd) if (each.inFlight > 0) each.peerGone()
  }

  /** Exports with a large WRITE that cannot change processes. */
  fixed(): string[] {
    return this.nbd.filter(({ parts }) => parts.transmission.large.areFixed).map(({ served }) => served.name)
  }

  /** Waits, while everything goes on, for their clients to send the rest. Returns the exports of those that are left. */
  async settle(timeoutMs: number): Promise<readonly string[]> {
    const deadline = performance.now() + timeoutMs
    for (;;) {
      const fixed = [...new Set(this.fixed())]
      if (fixed.length === 0 || performance.now() >= deadline) return fixed
      await pause(SETTLE_POLL_MS)
    }
  }
}
