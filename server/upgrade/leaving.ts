// The last life of a process whose successor serves: it finishes the handshakes that it has begun and hands them over, and
// stays as long as a secured connection speaks through it. Law: it touches no storage any more.
import { closeSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import type { FrontEnds } from '../front-ends.js'
import type { IoHost } from '../io/io-host.js'
import type { ReadyGuest } from '../nbd/guest.js'
import type { Log } from '../observe/log.js'
import type { Successor } from './successor.js'

const POLL_MS = 50
/** How long those who asked for something else are waited for. */
const PATIENCE_MS = 3000

export interface Leaving {
  readonly log: Log
  readonly frontEnds: FrontEnds
  readonly hosts: readonly IoHost[]
  /** Clients whose handshake was done while everything was at rest. */
  readonly kept: readonly ReadyGuest[]
  /** Listens for HTTP no more. */
  closeHttp(): Promise<void>
  /** Settles when what an operator has asked is answered. */
  closeDoors(): Promise<unknown>
  /** The last lines of the log. */
  endLog(): Promise<void>
  /** Tells those who watch over the service who serves now; true when this process stays, to wait for its end. */
  announce(pid: number): boolean
}

function forward(successor: Successor, { guest, handOver }: ReadyGuest): void {
  const { peer, since } = guest
  const { established, leftover, fd } = handOver
  try {
    const words = { guest: { peer, since, established }, leftover: Buffer.from(leftover).toString('base64') }
    successor.channel.mention({ kind: 'late', ...words }, [fd])
  } finally {
    closeSync(fd)
  }
}

function withPatience(act: Promise<unknown>): Promise<unknown> {
  return Promise.race([act, pause(PATIENCE_MS, undefined, { ref: false })])
}

/** Resolves when nobody needs this process any more. */
export async function leave(successor: Successor, parts: Leaving): Promise<void> {
  const { frontEnds, hosts, log } = parts
  const { nbd } = frontEnds
  for (const ready of parts.kept) forward(successor, ready)
  nbd.divert((ready) => forward(successor, ready))
  frontEnds.leave()
  const stays = parts.announce(successor.pid)
  // Its address may be asked for in other words by the process that takes over: it is free when that hears of it.
  await withPatience(parts.closeHttp())
  successor.channel.mention({ kind: 'announced', stays })
  const rest = Promise.all([parts.closeDoors(), ...hosts.map((host) => host.abandon())])
  await withPatience(rest)
  const tunnels = frontEnds.tunnels.open
  if (tunnels > 0)
    log.info({ connections: tunnels }, 'TLS connections go on through this process, which stays for them')
  while (nbd.handshakes > 0 || frontEnds.tunnels.open > 0) await pause(POLL_MS)
  await parts.endLog()
}
