// What ran, block by block, as V8 counts it. Law: the session begins before the watched code runs for the first time,
// for functions that were compiled earlier are only counted as a whole.
import { readFileSync } from 'node:fs'
import { type Profiler, Session } from 'node:inspector'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'

/** One watched file, and what of it ran since the last `take`: how often, for each character of its text. */
export interface Script {
  readonly url: string
  readonly file: string
  readonly text: string
  readonly counts: Int32Array
  /** 1 for each character inside of a function. */
  readonly inside: Uint8Array
  /** Where blocks begin and end, as far as counts have told them apart. */
  readonly cuts: Set<number>
}

export class CoverageProbe {
  readonly #session = new Session()
  readonly #watched: RegExp
  readonly #scripts = new Map<string, Script>()
  #peak = 0

  /** Watches the files whose URL matches. */
  constructor(watched: RegExp) {
    this.#watched = watched
    this.#session.connect()
    this.#session.post('Profiler.enable')
    this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
  }

  stop(): void {
    this.#session.post('Profiler.stopPreciseCoverage')
    this.#session.disconnect()
  }

  /** How often the busiest block ran before the last `take`. */
  get peak(): number {
    return this.#peak
  }

  /** The watched files with what ran since the last call; valid until the next one. */
  take(): readonly Script[] {
    this.#peak = 0
    for (const { counts } of this.#scripts.values()) counts.fill(0)
    // In one thread the session answers before `post` returns.
    this.#session.post('Profiler.takePreciseCoverage', (error, { result }) => {
      if (error !== null) throw error
      for (const { url, functions } of result) {
        if (this.#watched.test(url)) for (const each of functions) this.#add(this.#script(url), each)
      }
    })
    return [...this.#scripts.values()]
  }

  #script(url: string): Script {
    const known = this.#scripts.get(url)
    if (known !== undefined) return known
    const path = fileURLToPath(url)
    const text = readFileSync(path, 'utf8')
    const script = {
      url,
      file: basename(path),
      text,
      counts: new Int32Array(text.length),
      inside: new Uint8Array(text.length),
      cuts: new Set<number>(),
    }
    this.#scripts.set(url, script)
    return script
  }

  // Outer functions and ranges come before inner ones, so that what is filled last is the innermost count.
  #add(script: Script, { functionName, ranges }: Profiler.FunctionCoverage): void {
    const [whole] = ranges
    const moduleItself = functionName === '' && whole?.startOffset === 0
    // Initializers span their whole class, methods and all.
    if (moduleItself || functionName.startsWith('<') || whole === undefined) return
    script.inside.fill(1, whole.startOffset, whole.endOffset)
    for (const { startOffset, endOffset, count } of ranges) {
      script.counts.fill(count, startOffset, endOffset)
      this.#peak = Math.max(this.#peak, count)
      script.cuts.add(startOffset).add(endOffset)
    }
  }
}

/** The power of two that a count falls under, as a bit: 1, 2-3, 4-7, … */
function bucket(count: number): number {
  return 1 << Math.min(7, 31 - Math.clz32(count))
}

/** What one target has reached so far. */
export class CoverageMap {
  readonly #seen = new Map<Script, Uint8Array>()

  #seenIn(script: Script): Uint8Array {
    let seen = this.#seen.get(script)
    if (seen === undefined) {
      seen = new Uint8Array(script.text.length)
      this.#seen.set(script, seen)
    }
    return seen
  }

  /** Whether anything ran that never ran before, in a run of one input or of many. */
  hasNews(scripts: readonly Script[]): boolean {
    for (const script of scripts) {
      const { counts } = script
      const seen = this.#seenIn(script)
      for (let at = 0; at < counts.length; at++) if (counts[at] !== 0 && seen[at] === 0) return true
    }
    return false
  }

  /** Adds the run of one input; whether it reached a new block, or a known one in a new order of counts. */
  absorb(scripts: readonly Script[]): boolean {
    let news = false
    for (const script of scripts) {
      const { counts } = script
      const seen = this.#seenIn(script)
      for (let at = 0; at < counts.length; at++) {
        const count = counts[at] ?? 0
        if (count === 0) continue
        const before = seen[at] ?? 0
        const after = before | bucket(count)
        if (after === before) continue
        seen[at] = after
        news = true
      }
    }
    return news
  }

  reached(script: Script, at: number): boolean {
    return (this.#seen.get(script)?.[at] ?? 0) !== 0
  }
}

export interface FileReach {
  readonly file: string
  readonly reached: number
  readonly blocks: number
  /** Lines of the compiled file on which a block begins that was never reached. */
  readonly missing: readonly number[]
}

/** Blocks of each file that any of the maps has reached. */
export function reachOf(scripts: readonly Script[], maps: readonly CoverageMap[]): FileReach[] {
  return scripts.map((script) => {
    const cuts = [...script.cuts].sort((a, b) => a - b)
    const missing = new Set<number>()
    let [blocks, reached] = [0, 0]
    cuts.forEach((start, index) => {
      const text = script.text.slice(start, cuts[index + 1] ?? start)
      if (script.inside[start] === 0 || !/\w/.test(text)) return
      blocks += 1
      if (maps.some((map) => map.reached(script, start))) reached += 1
      else missing.add(script.text.slice(0, start + text.search(/\S/)).split('\n').length)
    })
    return { file: script.file, reached, blocks, missing: [...missing] }
  })
}
