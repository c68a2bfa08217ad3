// A candor with TLS for the tests, and what its metrics say of handshakes.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { RunningCandor } from './candor.js'
import { logged, type Scope, serve } from './faults.js'
import { scratchFolder } from './guest-images.js'

export interface ServedTls {
  readonly candor: RunningCandor
  readonly image: string
  readonly port: number
  readonly unix: string
}

/** Serves a new image of `size` as 'disk' on TCP and on a Unix socket, gone with the scope. */
export async function serveTls(scope: Scope, size: string, ...flags: readonly string[]): Promise<ServedTls> {
  const folder = scratchFolder(scope)
  const image = join(folder, 'disk.img')
  const unix = join(folder, 'nbd')
  const quiet = flags.includes('--log-level') ? [] : ['--log-level', 'warn']
  const listen = ['--listen', 'tcp:127.0.0.1:0', '--listen', `unix:${unix}`, ...quiet]
  const candor = await serve(scope, [`disk=${image}`, '--create', size, ...listen, ...flags])
  return { candor, image, port: portOf(candor), unix }
}

/** The TCP port of the first listener that has one. */
export function portOf({ uris }: RunningCandor): number {
  const port = uris.map((uri) => /^nbds?:\/\/[^/]*:(\d+)\//.exec(uri)?.[1]).find((found) => found !== undefined)
  assert.ok(port !== undefined, `no TCP port among ${uris.join(' ')}`)
  return Number(port)
}

/** Asks for the metrics until they are as expected; fails with the last answer when that takes very long. */
export async function untilMetrics(
  candor: RunningCandor,
  expected: (metrics: ReadonlyMap<string, number>) => boolean,
  what: string,
): Promise<void> {
  const deadline = performance.now() + 20_000
  for (;;) {
    const metrics = await candor.metrics()
    if (expected(metrics)) return
    const told = [...metrics].filter(([name]) => /connections|failures|errors/.test(name))
    assert.ok(performance.now() < deadline, `never came true: ${what}\n${told.join('\n')}`)
  }
}

/** Waits until the log has a message that matches: it is written behind the events that it tells of. */
export async function untilLogged(candor: RunningCandor, pattern: RegExp): Promise<string> {
  const deadline = performance.now() + 20_000
  for (;;) {
    const [message] = logged(candor, pattern)
    if (message !== undefined) return message
    assert.ok(performance.now() < deadline, `the log never said ${pattern}:\n${candor.stderr()}`)
    await sleep(10)
  }
}

/** Waits until so many connections are open. */
export function untilConnections(candor: RunningCandor, count: number): Promise<void> {
  return untilMetrics(candor, (metrics) => metrics.get('candor_connections') === count, `${count} connections`)
}

/** Handshakes that failed so far, by reason; those that never did are left out. */
export async function handshakeFailures(candor: RunningCandor): Promise<Readonly<Record<string, number>>> {
  const counted = [...(await candor.metrics())].flatMap(([name, value]) => {
    const reason = /^candor_handshake_failures_total\{reason="([^"]+)"\}$/.exec(name)?.[1]
    return reason === undefined || value === 0 ? [] : [[reason, value] as const]
  })
  return Object.fromEntries(counted)
}

/** Waits until exactly these handshakes have failed since the server began. */
export async function untilFailed(candor: RunningCandor, expected: Readonly<Record<string, number>>): Promise<void> {
  const sum = Object.values(expected).reduce((total, count) => total + count, 0)
  const failed = (metrics: ReadonlyMap<string, number>) =>
    [...metrics].filter(([name]) => name.startsWith('candor_handshake_failures_total')).reduce((n, [, v]) => n + v, 0)
  await untilMetrics(candor, (metrics) => failed(metrics) >= sum, `${sum} failed handshakes`)
  assert.deepEqual(await handshakeFailures(candor), expected)
}
