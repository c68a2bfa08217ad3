// Either process is killed while one hands over to the other. Law: at most one of them serves afterwards; where one does, its
// clients have noticed nothing, and what was acknowledged by any of them reads back.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { askServer } from '../../server/cli/ask-server.js'
import type { ControlReply } from '../../server/control/export-actions.js'
import { type Controlled, control, folderOf, imageAt } from '../support/controlled.js'
import { attach, lastFirst, logged, MIB, type Scope } from '../support/faults.js'
import { Region } from '../support/kill-region.js'
import { kill, lives, pidsOf, untilGone } from '../support/lineage.js'
import { type Random, seededRandom } from '../support/random.js'
import { UNDER_ALL } from '../support/requirements.js'

const STAGES: Readonly<Record<string, RegExp>> = {
  'a new process starts': /upgrade: a new process starts/,
  'the new process is prepared': /upgrade: the new process is prepared/,
  'everything is at rest': /upgrade: everything is at rest/,
  'everything is handed over': /upgrade: everything is handed over/,
  'the new process serves': /upgrade: process \d+ serves/,
}
const ROUNDS = UNDER_ALL ? 6 : 1
const LATE_MS_MAX = 30
const SLOTS = 24
const POLL_MS = 10

type Victim = 'old' | 'new'

/** Who serves when all has settled. */
async function survivor(server: Controlled, old: number, next: number, reply: Promise<ControlReply | undefined>) {
  const answer = await reply
  for (;;) {
    const alive = [old, next].filter(lives)
    if (alive.length === 0) return undefined
    // After an upgrade that succeeded the old one is about to leave, as after one that lost its new process it is not.
    if (alive.length === 1 && !(answer?.ok === true && alive[0] === old)) {
      const told = await askServer(server.state, { command: 'exports' }).catch(() => undefined)
      if (told?.ok === true) return alive[0]
    }
    await pause(POLL_MS)
  }
}

async function killed(server: Controlled, victim: Victim, stage: RegExp, random: Random) {
  const old = server.candor.pid
  const reply = askServer(server.state, { command: 'upgrade' }).catch(() => undefined)
  while (!stage.test(server.candor.stderr())) await pause(1)
  const next = Number(/"pid":(\d+)/.exec(server.candor.stderr())?.[1])
  // At once, or a little later: within what follows the stage.
  const lateMs = random.below(LATE_MS_MAX)
  if (lateMs > LATE_MS_MAX / 3) await pause(lateMs)
  kill(victim === 'old' ? old : next, 'SIGKILL')
  return { survivor: await survivor(server, old, next, reply), old, next }
}

function sum(regions: readonly Region[]): number {
  return regions.reduce((all, { acknowledged }) => all + [...acknowledged.values()].reduce((a, b) => a + b, 0), 0)
}

/** One server, one upgrade, one kill; returns who served afterwards. */
async function round(scope: Scope, t: TestContext, victim: Victim, stage: RegExp): Promise<string> {
  const random = seededRandom(t)
  const folder = folderOf(scope)
  const words = ['--http', 'off', `disk=${imageAt(join(folder, 'disk'), 16 * MIB)}`]
  const server = await control(scope, folder, { words })
  scope.after(() => {
    for (const pid of pidsOf(server.candor.stderr())) kill(pid, 'SIGKILL')
  })
  const first = new Region(0, SLOTS, random)
  const regions = [first, new Region(first.end, SLOTS, random)]
  const loads = regions.map((region) => region.load(() => attach(server.candor)))
  await Promise.all(regions.map((region) => region.sent('flush')))
  const { survivor: serving, old } = await killed(server, victim, stage, random)
  if (serving !== undefined) {
    const before = sum(regions)
    await Promise.race([Promise.all(loads), untilMore(regions, before + 20)])
    assert.ok(sum(regions) >= before + 20, 'the clients of the process that serves are served')
    kill(serving, 'SIGKILL')
    await untilGone(serving)
  }
  await Promise.all(loads)
  await server.candor.ended
  const after = await control(scope, folder, { words })
  const client = await attach(after.candor)
  for (const region of regions) await region.check(client)
  assert.deepEqual(logged(after.candor, /suspect|damaged/), [])
  assert.equal((await after.candor.stop()).code, 0)
  return serving === undefined ? 'nobody' : serving === old ? 'the old one' : 'the new one'
}

async function untilMore(regions: readonly Region[], requests: number): Promise<void> {
  while (sum(regions) < requests) await pause(POLL_MS)
}

for (const [stage, pattern] of Object.entries(STAGES)) {
  test(`whichever process is killed when ${stage}, nothing that was acknowledged is lost`, async (t) => {
    const scope = lastFirst(t)
    for (let number = 0; number < ROUNDS; number++) {
      for (const victim of ['old', 'new'] as const) {
        const serving = await round(scope, t, victim, pattern)
        t.diagnostic(`${victim} killed: ${serving} serves`)
        if (victim === 'new' && stage === 'a new process starts') assert.equal(serving, 'the old one')
      }
    }
  })
}
