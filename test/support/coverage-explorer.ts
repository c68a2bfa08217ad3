// The search: known inputs are spoilt, the spoilt ones run, and those that reach something new are known from then on.

import { writeCrash } from './coverage-cases.js'
import { Mutator } from './coverage-mutations.js'
import type { CoverageMap, CoverageProbe, Script } from './coverage-probe.js'
import type { Watchdog } from './coverage-watchdog.js'
import type { Random } from './fuzz-random.js'
import { hex } from './raw-bytes.js'

/** Something that takes any bytes at all, and keeps its laws. */
export interface Target {
  readonly name: string
  /** Seconds of search in a short run. */
  readonly seconds: number
  readonly seeds: readonly Uint8Array[]
  /** How often a block may run for each byte of input. */
  readonly stepsPerByteMax: number
  /** Spoilt inputs that run between two looks at the coverage. */
  readonly batch: number
  /** @throws what an oracle has to say */
  run(input: Uint8Array): Promise<void> | void
}

export interface Tools {
  readonly probe: CoverageProbe
  readonly map: CoverageMap
  readonly random: Random
  readonly watchdog: Watchdog
}

/** Steps that have nothing to do with the input's length. */
const STEPS_FREE = 4000
/** Longer inputs are slower, and chosen more rarely. */
const LONG_BYTES = 1500
/** One batch in so many looks at every input alone, and so sees counts as well as blocks. */
const EXACT_BATCHES = 10

export class Explorer {
  readonly #target: Target
  readonly #tools: Tools
  readonly #mutator: Mutator
  readonly #known: Uint8Array[] = []
  executions = 0

  constructor(target: Target, tools: Tools) {
    this.#target = target
    this.#tools = tools
    this.#mutator = new Mutator(tools.random)
  }

  /** Inputs that reached something new, seeds included. */
  get known(): readonly Uint8Array[] {
    return this.#known
  }

  /** Runs one input by itself; it becomes known when it reaches anything new. */
  async add(input: Uint8Array): Promise<boolean> {
    this.#tools.probe.take()
    await this.#run(input)
    const scripts = this.#take([input])
    if (!this.#tools.map.absorb(scripts)) return false
    this.#known.push(input)
    return true
  }

  async explore(milliseconds: number): Promise<void> {
    const deadline = performance.now() + milliseconds
    for (let round = 0; performance.now() < deadline; round++) {
      const inputs = Array.from({ length: this.#target.batch }, () => this.#spoilt())
      if (round % EXACT_BATCHES === 0) await this.#addEach(inputs)
      else await this.#tryAll(inputs)
    }
  }

  #spoilt(): Uint8Array {
    const { random } = this.#tools
    const choose = () => {
      const first = random.pick(this.#known)
      return first.length > LONG_BYTES && !random.onceIn(8) ? random.pick(this.#known) : first
    }
    return this.#mutator.mutate(choose(), choose())
  }

  async #tryAll(inputs: readonly Uint8Array[]): Promise<void> {
    this.#tools.probe.take()
    for (const input of inputs) await this.#run(input)
    const scripts = this.#take(inputs)
    if (this.#tools.map.hasNews(scripts)) await this.#addEach(inputs)
  }

  async #addEach(inputs: readonly Uint8Array[]): Promise<void> {
    for (const input of inputs) await this.add(input)
  }

  async #run(input: Uint8Array): Promise<void> {
    this.executions += 1
    this.#tools.watchdog.watch(this.#target.name, input)
    try {
      await this.#target.run(input)
    } catch (error) {
      throw this.#crash(error, input)
    }
  }

  #take(inputs: readonly Uint8Array[]): readonly Script[] {
    const scripts = this.#tools.probe.take()
    const bytes = inputs.reduce((sum, { length }) => sum + length, 0)
    const bound = STEPS_FREE * inputs.length + this.#target.stepsPerByteMax * bytes
    const { peak } = this.#tools.probe
    if (peak <= bound) return scripts
    const longest = inputs.reduce((one, other) => (other.length > one.length ? other : one))
    throw this.#crash(new Error(`a block ran ${peak} times for ${bytes} bytes; ${bound} is the bound`), longest)
  }

  #crash(error: unknown, input: Uint8Array): Error {
    const path = writeCrash(this.#target.name, input)
    const text = hex(input.subarray(0, 400))
    const told = error instanceof Error ? error.message : String(error)
    return new Error(`${this.#target.name}: ${told}\nthe input is in ${path}:\n${text}`, { cause: error })
  }
}
