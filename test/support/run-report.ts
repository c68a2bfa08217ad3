// What stands at the end of a run: which files took longest, what was skipped and why. Laws: no skip stays unsaid; a file
// that ran no test at all fails the run, since nobody would miss its tests.
import { relative } from 'node:path'
import type { TestEvent } from 'node:test/reporters'

const SLOWEST = 12

class Run {
  readonly #seconds = new Map<string, number>()
  readonly #skipped: string[] = []
  readonly #empty: string[] = []

  take(event: TestEvent): void {
    if (event.type !== 'test:pass' && event.type !== 'test:fail') return
    const { name, file = '', nesting, skip, details } = event.data
    const path = relative(process.cwd(), file)
    if (skip !== undefined) this.#skipped.push(`${path}: ${name}: ${skip === true ? 'no reason given' : skip}`)
    if (nesting !== 0) return
    // The runner's own test of a file is told only where the file has none, or failed as a whole.
    if (event.type === 'test:pass' && (name === file || name === path)) this.#empty.push(path)
    this.#seconds.set(path, (this.#seconds.get(path) ?? 0) + details.duration_ms / 1000)
  }

  get failed(): boolean {
    return this.#empty.length > 0
  }

  *lines(): IterableIterator<string> {
    const slowest = [...this.#seconds].sort(([, a], [, b]) => b - a).slice(0, SLOWEST)
    yield 'slowest, in seconds:'
    for (const [path, seconds] of slowest) yield `  ${seconds.toFixed(1).padStart(7)}  ${path}`
    yield `skipped: ${this.#skipped.length === 0 ? 'nothing' : this.#skipped.length}`
    for (const line of this.#skipped) yield `  ${line}`
    for (const path of this.#empty) yield `FAILED: ${path} ran no test`
  }
}

export default async function* runReport(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const run = new Run()
  for await (const event of source) run.take(event)
  for (const line of run.lines()) yield `${line}\n`
  if (run.failed) process.exitCode = 1
}
