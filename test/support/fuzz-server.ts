// The real server under fuzz, and what must hold after anything that was done to it: the same process, good clients
// served in every style, its connections counted down, its labels bounded, its log short.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { type Client, connectClient } from 'nbd-protocol'
import { type RunningCandor, startCandor, temporaryFolder } from './candor.js'
import { socketStream } from './in-process.js'
import { STYLES, type Style } from './raw-bytes.js'

/** A server that never answers fails the test instead of hanging it. */
export const WATCHDOG_MS = 60_000

const HANDSHAKE_FAILURES = 'candor_handshake_failures_total'
const PROTOCOL_ERRORS = 'candor_protocol_errors_total'

/** Whatever a client sends, labels take no other values; reasons are those that stand at zero from the start. */
const LABEL_VALUES: Readonly<Record<string, RegExp>> = {
  command: /^(?:read|write|disc|flush|trim|cache|write_zeroes|block_status|resize|unknown)$/,
  errno: /^E[A-Z0-9]+$/,
  export: /^disk\d*$/,
}

export class FuzzServer {
  readonly candor: RunningCandor
  readonly path: string
  readonly image: string
  readonly size: number
  readonly #reasons: readonly string[]
  #ended = false

  private constructor(candor: RunningCandor, path: string, image: string, size: number, reasons: readonly string[]) {
    this.candor = candor
    this.path = path
    this.image = image
    this.size = size
    this.#reasons = reasons
    void candor.ended.then(() => {
      this.#ended = true
    })
  }

  /** Serves a new image of `size` bytes as the export 'disk'; stopped and removed when the test is over. */
  static async start(scope: TestContext, size: number, ...flags: readonly string[]): Promise<FuzzServer> {
    const folder = temporaryFolder()
    const [path, image] = [join(folder.path, 'nbd'), join(folder.path, 'disk.img')]
    const serve = [
      'serve',
      `disk=${image}`,
      '--create',
      String(size),
      '--listen',
      `unix:${path}`,
      '--log-level',
      'warn',
    ]
    try {
      const candor = await startCandor([...serve, ...flags])
      scope.after(async () => {
        await candor.stop()
        folder.remove()
      })
      return new FuzzServer(candor, path, image, size, reasonsOf(await candor.metrics()))
    } catch (error) {
      folder.remove()
      throw error
    }
  }

  async client(style: Style, name = 'disk'): Promise<Client> {
    const contexts = style === 'simple' ? [] : ['base:allocation']
    const client = await connectClient(await socketStream(this.path), name, { replyStyle: style, contexts })
    assert.equal(client.negotiation.replyStyle, style)
    return client
  }

  /** The sum of a counter over all its labels. */
  async sum(name: string): Promise<number> {
    let sum = 0
    for (const [key, value] of await this.candor.metrics()) if (key.replace(/\{.*/, '') === name) sum += value
    return sum
  }

  handshakeFailures(): Promise<number> {
    return this.sum(HANDSHAKE_FAILURES)
  }

  protocolErrors(): Promise<number> {
    return this.sum(PROTOCOL_ERRORS)
  }

  async counted(name: string, reason: string): Promise<number> {
    return (await this.candor.metrics()).get(`${name}{reason="${reason}"}`) ?? Number.NaN
  }

  /** Waits until the server has noticed that all but `open` connections are gone. */
  async settled(open = 0): Promise<void> {
    for (;;) {
      assert.ok(!this.#ended, `candor has ended:\n${this.candor.stderr()}`)
      if ((await this.candor.metrics()).get('candor_connections') === open) return
    }
  }

  /** The law of every fuzz test, to be asserted after each batch; `at` is the place of 4096 bytes that it may use. */
  async assertSound(at: number): Promise<void> {
    await this.settled()
    for (const [index, style] of STYLES.entries()) {
      const client = await this.client(style)
      const data = new Uint8Array(4096).fill(1 + index)
      await client.write(at, data)
      await client.flush()
      assert.deepEqual(await client.read(at, 4096), data, `a good client is served in the ${style} style`)
      await client.disconnect()
    }
    await this.settled()
    process.kill(this.candor.pid, 0)
    assert.ok(!this.#ended, 'the process is the one that was started')
    const samples = await this.candor.metrics()
    assertLabels(samples)
    assert.deepEqual(reasonsOf(samples), this.#reasons)
    const log = this.candor.stderr()
    assert.doesNotMatch(log, /^\s+at .*\(.*:\d+\)$/m, 'no stack trace')
    assert.ok(log.split('\n').length < 400, `the log stays short:\n${log.slice(0, 4000)}`)
  }
}

function reasonsOf(samples: ReadonlyMap<string, number>): string[] {
  return [...samples.keys()].filter((key) => key.includes('reason="')).sort()
}

function assertLabels(samples: ReadonlyMap<string, number>): void {
  for (const key of samples.keys()) {
    if (!/^candor_(?!build_info)/.test(key)) continue
    for (const [, label = '', value = ''] of key.matchAll(/(\w+)="([^"]*)"/g)) {
      if (label in LABEL_VALUES) assert.match(value, LABEL_VALUES[label] ?? /^/, key)
    }
  }
}
