// The codec and the server's transmission under inputs that are bred by what they reach. Law: every input that was
// ever interesting is run again first; a minute of search in every test run, an hour where CANDOR_TEST_ALL asks.
import assert from 'node:assert/strict'
import { after, type TestContext, test } from 'node:test'
import { readCases } from '../support/coverage-cases.js'
import { clientHandshakeTarget, clientTarget } from '../support/coverage-client.js'
import { codecTarget } from '../support/coverage-codec.js'
import { Explorer, type Target } from '../support/coverage-explorer.js'
import { handshakeTarget } from '../support/coverage-handshake.js'
import { CoverageMap, CoverageProbe, reachOf } from '../support/coverage-probe.js'
import { ServerTarget } from '../support/coverage-server.js'
import { Watchdog } from '../support/coverage-watchdog.js'
import { seededRandom } from '../support/fuzz-random.js'

/** How long the searches take together: a minute, an hour under --all, or as CANDOR_FUZZ_MINUTES says. */
const MINUTES = Number(process.env['CANDOR_FUZZ_MINUTES'] ?? (process.env['CANDOR_TEST_ALL'] === '1' ? 60 : 1))

// Before anything of it runs: what was compiled earlier is not counted block by block.
const probe = new CoverageProbe(/\/protocol\/nbd\/dist\/[^/]+\.js$|\/dist\/server\/nbd\/[^/]+\.js$/)
const watchdog = new Watchdog()
const server = await ServerTarget.start()
const targets: readonly Target[] = [handshakeTarget, codecTarget, clientHandshakeTarget, clientTarget, server]
const cases = readCases()

after(async () => {
  await server.stop()
  await watchdog.stop()
  probe.stop()
})

for (const { file, target: name, input } of cases) {
  test(`the laws hold for what once was interesting: ${file}`, async () => {
    const target = targets.find((each) => each.name === name)
    assert.ok(target !== undefined, `${file} begins with the name of a target`)
    watchdog.watch(name, input)
    await target.run(input)
  })
}

async function search(scope: TestContext, target: Target, map: CoverageMap): Promise<void> {
  const explorer = new Explorer(target, { probe, map, random: seededRandom(scope), watchdog })
  const known = cases.filter((each) => each.target === target.name).map(({ input }) => input)
  for (const input of [...target.seeds, ...known]) await explorer.add(input)
  const seeds = explorer.known.length
  await explorer.explore(target.seconds * 1000 * MINUTES)
  scope.diagnostic(
    `${explorer.executions} inputs; ${seeds} seeds grew to ${explorer.known.length} that reach something new`,
  )
}

function tell(scope: TestContext, maps: readonly CoverageMap[], part: RegExp): void {
  const scripts = probe.take().filter(({ url }) => part.test(url))
  for (const { file, reached, blocks, missing } of reachOf(scripts, maps)) {
    const rest = missing.length === 0 ? '' : `; not reached: lines ${missing.join(', ')} of the compiled file`
    scope.diagnostic(`${file}: ${reached} of ${blocks} blocks${rest}`)
  }
}

const codecMaps: CoverageMap[] = []

for (const target of targets.filter(({ name }) => name !== 'server')) {
  test(`no bytes, however bred, break a law of the ${target.name}`, async (scope) => {
    const map = new CoverageMap()
    codecMaps.push(map)
    await search(scope, target, map)
    if (codecMaps.length === targets.length - 1) tell(scope, codecMaps, /\/protocol\/nbd\//)
  })
}

test('no stream of requests, however bred, throws in the server, goes unanswered or harms its neighbour', async (scope) => {
  const map = new CoverageMap()
  await search(scope, server, map)
  const { open, good } = server.connections
  assert.equal(open, good, 'no connection is left behind')
  tell(scope, [map], /\/dist\/server\/nbd\//)
})
