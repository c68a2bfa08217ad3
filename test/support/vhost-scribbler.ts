// A second processor of the guest: writes into its memory without end, as the first reads and writes it.
import { parentPort, workerData } from 'node:worker_threads'
import { VhostMemory } from '../../backends/index.js'

export interface Scribble {
  readonly fd: number
  readonly bytes: number
  /** Places in the file, of 8 bytes each. */
  readonly places: readonly number[]
  readonly values: readonly bigint[]
  /** Not 0: stop. */
  readonly stop: Int32Array
}

const { fd, bytes, places, values, stop } = workerData as Scribble
const memory = new VhostMemory()
memory.add({ guestAddress: 0n, size: BigInt(bytes), userAddress: 0n, offset: 0n, fd })
const window = memory.window(0) ?? new Uint8Array()
const view = new DataView(window.buffer)

parentPort?.postMessage('at work')
while (Atomics.load(stop, 0) === 0) {
  for (const place of places) view.setBigUint64(place, values[Math.floor(Math.random() * values.length)] ?? 0n, true)
}
memory.close()
