// The thread that notices an input which never comes to an end, and says which it was. The main thread cannot: it is
// busy with it. Law: an endless loop is a failed test that names its input, not a test run that hangs.
import { writeSync } from 'node:fs'
import { isMainThread, Worker, workerData } from 'node:worker_threads'
import { writeCrash } from './coverage-cases.js'

/** An input takes milliseconds; one that takes this long takes for ever. */
const PATIENCE_MS = 60_000
const INPUT_BYTES_MAX = 1 << 20
const NAME_BYTES_MAX = 64

// Cells of the shared memory: a clock that ticks with every input, the input's length, the length of its target's name.
const [TICK, LENGTH, NAME_LENGTH] = [0, 1, 2] as const
const HEADER_BYTES = 16

interface Shared {
  readonly cells: Int32Array
  readonly name: Uint8Array
  readonly input: Uint8Array
}

function over(memory: SharedArrayBuffer): Shared {
  return {
    cells: new Int32Array(memory, 0, 4),
    name: new Uint8Array(memory, HEADER_BYTES, NAME_BYTES_MAX),
    input: new Uint8Array(memory, HEADER_BYTES + NAME_BYTES_MAX, INPUT_BYTES_MAX),
  }
}

export class Watchdog {
  readonly #shared: Shared
  readonly #worker: Worker

  constructor() {
    const memory = new SharedArrayBuffer(HEADER_BYTES + NAME_BYTES_MAX + INPUT_BYTES_MAX)
    this.#shared = over(memory)
    this.#worker = new Worker(new URL(import.meta.url), { workerData: memory })
    this.#worker.unref()
  }

  /** The input that runs from now on. */
  watch(target: string, input: Uint8Array): void {
    const { cells, name, input: place } = this.#shared
    cells[NAME_LENGTH] = new TextEncoder().encodeInto(target, name).written
    place.set(input.subarray(0, INPUT_BYTES_MAX))
    cells[LENGTH] = Math.min(input.length, INPUT_BYTES_MAX)
    Atomics.add(cells, TICK, 1)
  }

  async stop(): Promise<void> {
    await this.#worker.terminate()
  }
}

function guard({ cells, name, input }: Shared): void {
  for (;;) {
    const before = Atomics.load(cells, TICK)
    // Nobody wakes this thread: it sleeps the whole time, then looks.
    if (Atomics.wait(cells, TICK, before, PATIENCE_MS) !== 'timed-out') Atomics.wait(cells, 3, 0, PATIENCE_MS)
    if (Atomics.load(cells, TICK) !== before || before === 0) continue
    const target = Buffer.from(name.slice(0, cells[NAME_LENGTH])).toString()
    const path = writeCrash(target, input.slice(0, cells[LENGTH]))
    writeSync(2, `an input of '${target}' does not come to an end; it is in ${path}\n`)
    process.kill(process.pid, 'SIGKILL')
  }
}

if (!isMainThread && workerData instanceof SharedArrayBuffer) guard(over(workerData))
