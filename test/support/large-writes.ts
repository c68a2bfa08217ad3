// A served disk that writes down what reaches it, and clients that stop in the middle of a large WRITE.
import { after } from 'node:test'
import { setTimeout as pause, setImmediate as turn } from 'node:timers/promises'
import { type FaultPlan, type Operation, openBackend, WOULD_BLOCK, withFaults } from '../../backends/index.js'
import type { ExportOptions } from '../../server/exports/export-options.js'
import type { NbdLimits } from '../../server/nbd/nbd-options.js'
import { type InProcess, serveInProcess } from './in-process.js'
import { writeRequest } from './raw-bytes.js'
import { RawClient } from './raw-client.js'

export const MIB = 1 << 20
export const KIB = 1 << 10
export const DISK_BYTES = 32 * MIB

export interface Disk {
  readonly server: InProcess
  /** Writes that were done or are on their way, in order. */
  readonly writes: Operation[]
  plan: FaultPlan
}

export async function disk(
  limits: Partial<NbdLimits> = {},
  options: Pick<ExportOptions, 'onSpace' | 'ledger' | 'record'> = {},
): Promise<Disk> {
  const writes: Operation[] = []
  const made: { plan: FaultPlan } = { plan: () => undefined }
  const inner = await openBackend('memory', { size: DISK_BYTES })
  const faults = withFaults(inner, (operation) => {
    const fault = made.plan(operation)
    if (operation.command === 'write' && fault?.outcome !== WOULD_BLOCK) writes.push(operation)
    return fault
  })
  const server = await serveInProcess(faults, limits, options)
  after(() => server.close())
  return Object.assign(made, { server, writes })
}

/** Bytes of which each KiB tells where it belongs. */
export function pattern(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length, seed)
  for (let at = 0; at + 4 <= length; at += KIB) bytes.writeUInt32LE(at / KIB + seed, at)
  return bytes
}

export const noReadData = () => 0
export const slow = ({ command, now }: Operation) => (command === 'write' && now ? { outcome: WOULD_BLOCK } : undefined)

/** A gate in the way of storage. */
export interface Gate {
  readonly opened: Promise<void>
  open(): void
}

export function gate(): Gate {
  let open = () => {}
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  return { opened, open }
}

/** Turns of the event loop until `so` is true; the test's own time-out ends it. */
export async function until(so: () => boolean): Promise<void> {
  while (!so()) await turn()
}

export async function contents(from: Disk, offset: number, length: number): Promise<Buffer> {
  const client = await from.server.client()
  const data = Buffer.from(await client.read(offset, length))
  await client.disconnect()
  return data
}

export async function rawClient(of: Disk): Promise<RawClient> {
  const client = await RawClient.enter(of.server.path, 'simple')
  after(() => client.vanish())
  return client
}

/** A connection that has sent a large WRITE at `offset` but for its last `missing` bytes. */
export async function begun(to: Disk, payload: Uint8Array, offset: number, missing: number, flags = 0) {
  const client = await rawClient(to)
  const frame = writeRequest('simple', 5n, offset, payload, flags)
  await client.send(frame.subarray(0, frame.length - missing))
  return { client, rest: frame.subarray(frame.length - missing) }
}

/** Sends a byte now and then, until the server ends the connection. */
export async function trickle(client: RawClient, bytes: Uint8Array, everyMs: number): Promise<void> {
  let isOver = false
  void client.closed.then(() => {
    isOver = true
  })
  for (let sent = 0; !isOver; ) {
    await Promise.race([client.send(bytes.subarray(sent, ++sent)), client.closed])
    await pause(everyMs)
  }
}
