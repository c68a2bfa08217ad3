// How a thread's exports and connections come to their end. Law: what is in flight is waited for as long as there is time.
import { setTimeout as pause } from 'node:timers/promises'
import type { Export } from '../exports/export.js'
import type { Served } from './host-connections.js'

const POLL_MS = 20

/** Whether anything is in flight, or has replies that were not taken. */
function isBusy(entries: Iterable<Export>, connections: Iterable<Served>): boolean {
  // Requests whose connection is gone are on their way through storage all the same, and a sync must not overtake them.
  for (const { waiting } of entries) if (waiting.oldest !== undefined) return true
  for (const connection of connections) if (connection.isBusy) return true
  return false
}

/** Waits until nothing is in flight and all replies are taken; false when that took too long. */
export async function untilIdle(
  entries: Iterable<Export>,
  connections: () => Iterable<Served>,
  timeoutMs: number,
): Promise<boolean> {
  const deadline = performance.now() + timeoutMs
  while (isBusy(entries, connections())) {
    if (performance.now() >= deadline) return false
    await pause(POLL_MS)
  }
  return true
}

/** For sums of requests without an answer. */
export function inFlightOf(sum: number, { inFlight }: Served): number {
  return sum + inFlight
}

/** Waits for what is in flight, and ends all connections. Of their ends the main thread tells secured clients: it has to find them. */
export async function finish(
  entries: Iterable<Export>,
  connections: ReadonlyMap<number, Served>,
  timeoutMs: number,
): Promise<{ unanswered: number }> {
  const deadline = performance.now() + timeoutMs
  await untilIdle(entries, () => connections.values(), timeoutMs)
  const all = [...connections.values()]
  const unanswered = all.reduce(inFlightOf, 0)
  for (const connection of all) connection.destroy()
  while (connections.size > 0 && performance.now() < deadline) await pause(POLL_MS)
  return { unanswered }
}
