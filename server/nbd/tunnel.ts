// Clients that speak TLS: threads of the addon cipher for them, so that their exports see a socket in the clear.
import { setTimeout as pause } from 'node:timers/promises'
import { TlsTunnels } from '../../backends/index.js'

const POLL_MS = 20

/** The secured clients of one front end, whose bytes go through this process to the end. */
export class Tunnels extends TlsTunnels {
  /** Waits until every client has its last replies, or that time has come. */
  async closed(deadline: number): Promise<void> {
    while (this.open > 0 && performance.now() < deadline) await pause(POLL_MS)
  }
}
