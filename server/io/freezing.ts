// How the exports of a thread come to rest, so that another process can go on with them. Law: while they are frozen nothing
// is begun and nothing is answered; each request that was taken is done by then, or begins anew afterwards, in order.
import { setTimeout as pause } from 'node:timers/promises'
import { NoDescriptorError } from '../../backends/index.js'
import type { Export } from '../exports/export.js'
import { freezeExport } from '../exports/moving.js'
import type { MovedExport, OpenedExport } from '../exports/open-export.js'
import { Connection } from '../nbd/connection.js'
import { type MovedConnection, type MovedRequest, takeOut } from '../nbd/moved.js'
import type { HostConnections } from './host-connections.js'

const POLL_MS = 1

/** What there is to freeze. */
export interface Freezable {
  readonly opened: ReadonlyMap<string, OpenedExport>
  readonly connections: HostConnections
  /** Where connections go that are taken out, one by one. */
  readonly takenOut: MovedConnection[]
  /** An operator's word is being carried out. */
  isActing(): boolean
  /** Nobody has called it off meanwhile. */
  isWanted(): boolean
}

/**
 * What has come to rest; or names of exports whose storage does not give requests back, or cannot change processes; or why
 * not every connection could be taken out.
 */
export type FrozenHost =
  | {
      readonly kind: 'frozen'
      readonly exports: readonly MovedExport[]
      readonly connections: readonly MovedConnection[]
    }
  | { readonly kind: 'busy'; readonly exports: readonly string[] }
  | { readonly kind: 'short'; readonly sentence: string }

function busyNames({ opened, connections, isActing }: Freezable): string[] {
  const waiting = [...opened].filter(([, { entry }]) => entry.waiting.oldest !== undefined).map(([name]) => name)
  waiting.push(...connections.fixed())
  return waiting.length === 0 && isActing() ? [...opened.keys()] : waiting
}

/** Waits for what the kernel has, and takes all connections out. */
export async function freeze(host: Freezable, timeoutMs: number): Promise<FrozenHost> {
  const deadline = performance.now() + timeoutMs
  await letGuestsGo(host, deadline)
  // Called off meanwhile: nobody would thaw what is frozen from here on.
  if (!host.isWanted()) return { kind: 'busy', exports: [] }
  for (const each of host.connections.nbd) each.freeze()
  for (const { entry } of host.opened.values()) freezeExport(entry, true)
  for (;;) {
    if (!host.isWanted()) return { kind: 'busy', exports: [] }
    const busy = busyNames(host)
    if (busy.length === 0) break
    if (performance.now() >= deadline) return { kind: 'busy', exports: busy }
    await pause(POLL_MS)
  }
  const moved = new Map<string, MovedExport>()
  for (const [name, { moved: take }] of host.opened) {
    const one = await take()
    if (one !== undefined) moved.set(name, one)
  }
  const fixed = [...host.opened.keys()].filter((name) => !moved.has(name))
  if (fixed.length > 0 || !host.isWanted()) return { kind: 'busy', exports: fixed }
  try {
    takeAllOut(host)
  } catch (error) {
    if (!(error instanceof NoDescriptorError)) throw error
    return { kind: 'short', sentence: error.message }
  }
  return { kind: 'frozen', exports: [...moved.values()], connections: [...host.takenOut] }
}

/**
 * A guest's memory cannot change processes: its requests in flight are answered, the others left in its rings, and its
 * monitor comes again to whoever serves then.
 */
async function letGuestsGo({ connections }: Freezable, deadline: number): Promise<void> {
  const guests = [...connections.values()].filter((each) => !(each instanceof Connection))
  for (const guest of guests) guest.drain()
  while (guests.some(({ isBusy }) => isBusy) && performance.now() < deadline) {
    await pause(POLL_MS)
  }
  for (const guest of guests) guest.destroy()
}

/** What is left has come to its end, and only waits for its last replies to be taken. @throws NoDescriptorError */
function takeAllOut({ connections, takenOut }: Freezable): void {
  for (const [number, connection] of connections) {
    const one = connection instanceof Connection ? takeOut(connection) : undefined
    if (one === undefined) continue
    connections.delete(number)
    takenOut.push({ connection: number, exportName: one.established.exportName, ...one })
  }
}

/** A connection with what it has to begin anew. */
export interface Resumed {
  readonly connection: Connection
  readonly requests: readonly MovedRequest[]
}

/** Requests begin in the order in which they came, whichever connection they came on; then all connections are served. */
export function resume(entries: Iterable<Export>, resumed: readonly Resumed[]): void {
  for (const entry of entries) freezeExport(entry, false)
  const requests = resumed.flatMap(({ connection, requests }) => requests.map((moved) => ({ connection, moved })))
  for (const { connection, moved } of requests.sort((a, b) => a.moved.number - b.moved.number)) {
    connection.parts.transmission.slow.start(moved.request, { bytes: moved.payload, pooled: undefined }, moved)
  }
  for (const { connection } of resumed) connection.start()
}
