// --allow-clients: who comes from elsewhere does not see the export. Clients choose their address among those of the
// loopback network.
import assert from 'node:assert/strict'
import type { NetConnectOpts } from 'node:net'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { WATCHDOG_MS } from '../support/conformance-server.js'
import { type Scope, serve } from '../support/faults.js'
import { type Mistake, serving, testMistakes } from '../support/faults-mistakes.js'
import { scratchFolder } from '../support/guest-images.js'
import { portOf } from '../support/tls-server.js'
import { visible } from '../support/tls-visibility.js'

const NAMES = ['first', 'second'] as const
const hasIPv6 = networkInterfaces()['lo']?.some(({ address }) => address === '::1') ?? false

interface Reached {
  readonly port: number
  readonly unix: string
  from(localAddress: string): Promise<string[]>
}

/** Serves 'first' and 'second' on an address and on a Unix socket. */
async function serveTwo(scope: Scope, rules: readonly string[], host = '127.0.0.1'): Promise<Reached> {
  const folder = scratchFolder(scope)
  const unix = join(folder, 'nbd')
  const images = NAMES.map((name) => `${name}=${join(folder, name)}`)
  const flags = rules.flatMap((rule) => ['--allow-clients', rule])
  const listen = ['--listen', `tcp:${host}:0`, '--listen', `unix:${unix}`]
  const candor = await serve(scope, [...images, '--create', '1M', ...listen, ...flags, '--http', 'off'])
  const port = portOf(candor)
  const to = (localAddress: string): NetConnectOpts => ({
    host: host.replace(/^\[(?:::ffff:)?|\]$/g, ''),
    port,
    localAddress,
  })
  return { port, unix, from: (localAddress) => visible(to(localAddress), NAMES) }
}

const ALL = [...NAMES]

describe('--allow-clients', { timeout: WATCHDOG_MS, concurrency: 2 }, () => {
  test('without it everybody sees everything', async (scope) => {
    const { from, unix } = await serveTwo(scope, [])
    assert.deepEqual([await from('127.0.0.1'), await from('127.9.9.9'), await visible(unix, NAMES)], [ALL, ALL, ALL])
  })

  test('NETWORK holds for all exports, to the bit', async (scope) => {
    const { from } = await serveTwo(scope, ['127.0.2.0/23'])
    const seen = await Promise.all(['127.0.1.255', '127.0.2.0', '127.0.3.255', '127.0.4.0'].map(from))
    assert.deepEqual(seen, [[], ALL, ALL, []])
  })

  test('an address alone is a network of one', async (scope) => {
    const { from } = await serveTwo(scope, ['127.0.0.2'])
    assert.deepEqual(await Promise.all(['127.0.0.1', '127.0.0.2', '127.0.0.3'].map(from)), [[], ALL, []])
  })

  test('/0 is everybody', async (scope) => {
    const { from } = await serveTwo(scope, ['0.0.0.0/0'])
    assert.deepEqual(await from('127.0.0.1'), ALL)
  })

  test('EXPORT=NETWORK holds for that export, and leaves the others to everybody', async (scope) => {
    const { from } = await serveTwo(scope, ['first=127.0.0.2'])
    assert.deepEqual([await from('127.0.0.1'), await from('127.0.0.2')], [['second'], ALL])
  })

  test('several networks are alternatives, and those for all are added to those of an export', async (scope) => {
    const { from } = await serveTwo(scope, ['127.0.0.2', '127.0.0.3', 'second=127.0.0.4'])
    const seen = await Promise.all(['127.0.0.1', '127.0.0.2', '127.0.0.3', '127.0.0.4'].map(from))
    assert.deepEqual(seen, [[], ALL, ALL, ['second']])
  })

  test('a Unix socket is not a matter of networks: its file permissions have spoken', async (scope) => {
    const { unix } = await serveTwo(scope, ['127.0.0.2', 'first=10.0.0.0/8'])
    assert.deepEqual(await visible(unix, NAMES), ALL)
  })

  test('IPv6 has networks too', { skip: hasIPv6 ? false : 'there is no ::1 here' }, async (scope) => {
    const { from } = await serveTwo(scope, ['first=::1/128', 'second=fe80::/10', 'second=127.0.0.0/8'], '[::1]')
    assert.deepEqual(await from('::1'), ['first'])
  })

  test('a client whose IPv4 address comes mapped into IPv6 is judged by its IPv4 address', {
    skip: hasIPv6 ? false : 'there is no IPv6 here',
  }, async (scope) => {
    const rules = ['first=127.0.0.2', 'second=127.0.0.0/8']
    const { from } = await serveTwo(scope, rules, '[::ffff:127.0.0.1]')
    assert.deepEqual([await from('127.0.0.1'), await from('127.0.0.2')], [['second'], ALL])
  })
})

const NO_NETWORKS = [
  '',
  '10.0.0',
  '10.0.0.0/33',
  '300.0.0.0/8',
  '010.0.0.0/8',
  '::1/129',
  '1::2::3',
  'localhost',
  '10.0.0.0/8/8',
  'other=10.0.0.0/8',
  'disk=',
  'disk=10.0.0.0/8,11.0.0.0/8',
]

testMistakes(
  '--allow-clients',
  NO_NETWORKS.map(
    (word): Mistake => ({
      title: `'${word}'`,
      words: (scene) => [...serving(scene, `disk=${scene.image}`), '--allow-clients', word],
      says: ['--allow-clients', '10.0.0.0/8'],
    }),
  ),
)
