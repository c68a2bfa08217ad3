// A real candor for a conformance suite: two exports, a Unix socket and a TCP port, gone when the suite is over.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before } from 'node:test'
import { type RunningCandor, startCandor, temporaryFolder } from './candor.js'

/** A server that never answers fails the test instead of hanging it. */
export const WATCHDOG_MS = 120_000

/** A server from before the first test of a suite until after its last; nothing of it is there in between. */
export class Served {
  readonly size: number
  readonly #words: (folder: string) => readonly string[]
  #folder: ReturnType<typeof temporaryFolder> | undefined
  #candor: RunningCandor | undefined

  constructor(size: number, words: (folder: string) => readonly string[]) {
    this.size = size
    this.#words = words
    before(() => this.#start())
    after(() => this.#stop())
  }

  async #start(): Promise<void> {
    this.#folder = temporaryFolder()
    const listen = ['--listen', `unix:${this.unix}`, '--listen', 'tcp:127.0.0.1:0', '--log-level', 'error']
    this.#candor = await startCandor(['serve', ...this.#words(this.#path), ...listen])
  }

  async #stop(): Promise<void> {
    await this.#candor?.stop()
    this.#folder?.remove()
  }

  get #path(): string {
    assert.ok(this.#folder !== undefined, 'the server runs')
    return this.#folder.path
  }

  get candor(): RunningCandor {
    assert.ok(this.#candor !== undefined, 'the server runs')
    return this.#candor
  }

  /** The file behind the export 'disk'. */
  get image(): string {
    return join(this.#path, 'disk.img')
  }

  /** What `Session.open` connects to: a path, or a port of this machine. */
  get unix(): string {
    return join(this.#path, 'nbd')
  }

  get tcp(): string {
    const ports = this.candor.uris.map((uri) => /^nbd:\/\/127\.0\.0\.1:(\d+)\//.exec(uri)?.[1])
    return ports.find((port) => port !== undefined) ?? ''
  }
}

/** Serves new images of `size` bytes as 'disk' and 'other' to the suite that is being defined. */
export function serveImages(size: number, ...flags: readonly string[]): Served {
  const images = (folder: string) => ['disk', 'other'].map((name) => `${name}=${join(folder, `${name}.img`)}`)
  return new Served(size, (folder) => [...images(folder), '--create', String(size), ...flags])
}
