// Random requests of several clients, some of them guests, to a disk that fails at random as Linux disks do: errors, short transfers, late
// and re-ordered completions, failed syncs that are told once, lost pages, truncation, a full host, an operator, lost
// connections. Law: all four, for every single reply.
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Weather } from '../support/fault-weather.js'
import { type Random, seededRandom } from '../support/fuzz-random.js'
import { GuestPeer } from '../support/guest-peer.js'
import { STYLES } from '../support/raw-bytes.js'
import { type Scene, TruthClient, type TruthPeer } from '../support/truth-clients.js'
import { assertSeen } from '../support/truth-errors.js'
import { SECTOR_BYTES, TruthModel } from '../support/truth-model.js'
import { type Storage, TruthServer } from '../support/truth-server.js'

const SIZE = 256 << 10
const CLIENTS = 3
const IN_FLIGHT = 6
const REQUESTS = 600
/** Of each minute that the searches may take: see coverage.test.ts. */
const SECONDS_PER_MINUTE = 3
const MINUTES = Number(process.env['CANDOR_FUZZ_MINUTES'] ?? (process.env['CANDOR_TEST_ALL'] === '1' ? 60 : 1))
const PAGE_SECTORS = 4096 / SECTOR_BYTES
const HOLD_MS = 60_000

class Round {
  readonly scene: Scene
  readonly #clients: TruthClient[] = []
  readonly #weather: Weather
  readonly #random: Random
  #ids = 0
  #left = REQUESTS
  /** What the operator asked for and was not answered yet. */
  readonly #asked = new Set<Promise<void>>()
  #over = false

  constructor(served: TruthServer, random: Random) {
    const model = new TruthModel(SIZE)
    this.scene = {
      served,
      model,
      random,
      heard: [],
      stray: [],
      journal: [],
      clean: new Map(),
      answered: 0,
      strays: 0,
    }
    this.#weather = served.weather
    this.#random = random
  }

  /** An NBD client of any kind, or what serves a guest's requests. */
  async #newPeer(): Promise<TruthPeer> {
    const { server } = this.scene.served
    if (this.#random.onceIn(3)) return new GuestPeer(server.served)
    const replyStyle = this.#random.pick(STYLES)
    const contexts = replyStyle === 'simple' ? [] : ['base:allocation']
    return server.client({ replyStyle, contexts })
  }

  async #newClient(): Promise<TruthClient> {
    const peer = await this.#newPeer()
    this.#ids += 1
    const made = new TruthClient(this.scene, peer, this.#ids)
    this.#clients.push(made)
    return made
  }

  /** Everything at random, then calm, then what must hold in the end. */
  async run(): Promise<void> {
    const weather = this.#keepChanging()
    try {
      await Promise.all(Array.from({ length: CLIENTS }, () => this.#keepAsking()))
      await this.#calm()
      await this.#assertEnd()
    } finally {
      this.#over = true
      this.#weather.clearUp()
      await weather
    }
  }

  /** A client with several requests on their way, and another one when it has left. */
  async #keepAsking(): Promise<void> {
    while (this.#left > 0) {
      const client = await this.#newClient()
      const runners = Array.from({ length: IN_FLIGHT }, async () => {
        while (this.#left > 0 && !client.left) {
          this.#left -= 1
          await client.operate()
        }
      })
      await Promise.all(runners)
    }
  }

  async #keepChanging(): Promise<void> {
    while (!this.#over) {
      await nextTurn()
      if (!this.#weather.calm) this.#change()
    }
  }

  #change(): void {
    const random = this.#random
    const { disk, server } = this.scene.served
    if (random.onceIn(2)) this.#weather.release()
    if (random.onceIn(12)) disk.writeBackSome()
    if (random.onceIn(12)) disk.evict()
    if (random.onceIn(30)) server.served.beat()
    if (random.onceIn(15)) void this.#operator('hold-release')
    if (random.onceIn(60)) void this.#operator('hold-fail')
    if (random.onceIn(40)) void this.#operator('resume')
    if (random.onceIn(100)) this.#forget()
    if (random.onceIn(100)) this.#truncate()
    if (random.onceIn(150)) this.#loseOne()
  }

  #operator(command: Parameters<TruthServer['operator']>[0]): Promise<void> {
    const told = this.scene.served.operator(command).then((done) => {
      if (command === 'resume') this.#note(`resume: ${done}`)
      this.#asked.delete(told)
    })
    this.#asked.add(told)
    return told
  }

  #note(text: string): void {
    this.scene.journal.push(`host: ${text}`)
  }

  /** Not while a reply is on its way to a client whose change the server may have forgotten with the rest. */
  #forget(): void {
    const { served, model } = this.scene
    const all = Array.from({ length: model.sectors }, (_, at) => at)
    const suspects = all.filter((at) => served.isSuspect(at * SECTOR_BYTES))
    const isOpen = (at: number) => model.changesAt(at) > (served.isChanging(at * SECTOR_BYTES) ? 1 : 0)
    if (suspects.some(isOpen)) return
    for (const at of suspects) model.anythingGoes(at, at + 1)
    this.#note('forget')
    served.forgets += 1
    void this.#operator('forget')
  }

  #truncate(): void {
    const size = SIZE / 2 + this.#random.below(SIZE / 2 / SECTOR_BYTES) * SECTOR_BYTES
    if (this.scene.served.truncate(size)) this.#note(`truncated to sector ${size / SECTOR_BYTES}`)
  }

  #loseOne(): void {
    const here = this.#clients.filter(({ left }) => !left)
    if (here.length > 0) void this.#random.pick(here).leave(this.#random.onceIn(3))
  }

  /** Nothing fails any more; what stray requests may still do is done when the server has forgotten them. */
  async #calm(): Promise<void> {
    const { served, model, stray } = this.scene
    this.#weather.clearUp()
    for (const client of this.#clients) if (!client.left) await client.leave(true)
    while (served.server.server.connections > 0 || served.server.served.waiting.oldest !== undefined) {
      await this.#operator('hold-release')
      await nextTurn()
    }
    // A resume that ends later would make well what the end is about to be judged by.
    await Promise.all(this.#asked)
    for (const flight of stray.splice(0)) model.arrive(flight, false)
    this.#note('calm')
  }

  async #assertEnd(): Promise<void> {
    const { served, model } = this.scene
    const client = await this.#newClient()
    served.server.served.beat()
    served.server.served.inspect()
    const { present } = served.disk.look()
    for (let at = 0; at < model.sectors; at += PAGE_SECTORS) {
      const sectors = Array.from({ length: PAGE_SECTORS }, (_, index) => at + index)
      const suspects = sectors.filter((sector) => served.isSuspect(sector * SECTOR_BYTES))
      const isThere = suspects.length === 0 && (at + PAGE_SECTORS) * SECTOR_BYTES <= present
      assert.equal(
        await client.read([at, PAGE_SECTORS], false),
        isThere,
        `page at sector ${at}: ${suspects} are suspect`,
      )
      const wronged = suspects.find((sector) => this.scene.clean.get(sector) === served.told)
      assert.equal(wronged, undefined, 'a sector that was written after the last failure is suspect')
    }
    assert.equal(await client.flush(), served.server.served.state === 'ok')
    assert.equal(await served.operator('resume'), true)
    for (let at = 0; at < model.sectors; at += 64) assert.ok(await client.write([at, 64], 0))
    assert.ok(await client.flush())
    for (let at = 0; at < model.sectors; at += 64) assert.ok(await client.read([at, 64], false))
    assert.equal(served.server.served.durability.suspect.count, 0, 'all was written again')
    await assertSeen(this.scene)
    await client.leave(true)
  }
}

async function round(storage: Storage, random: Random, sums: Map<string, number>): Promise<void> {
  const onSpace = random.onceIn(2) ? { kind: 'hold' as const, timeoutMs: HOLD_MS } : { kind: 'report' as const }
  const weather = new Weather(random)
  const served = await TruthServer.start(storage, SIZE, weather, onSpace)
  const played = new Round(served, random)
  try {
    await played.run()
  } catch (error) {
    throw new Error(`${(error as Error).message}\nthe last events:\n${played.scene.journal.slice(-80).join('\n')}`, {
      cause: error,
    })
  } finally {
    await served.close()
  }
  const { model, answered, heard } = played.scene
  const found = {
    rounds: 1,
    replies: answered,
    errors: heard.length,
    'failed syncs told': served.told,
    'pages lost': served.disk.evicted,
    'words compared': model.compared,
    'words of one possible value': model.certain,
  }
  for (const [name, value] of Object.entries(found)) sums.set(name, (sums.get(name) ?? 0) + value)
}

async function play(scope: TestContext, storage: Storage): Promise<void> {
  const random = seededRandom(scope)
  const sums = new Map<string, number>()
  const end = performance.now() + SECONDS_PER_MINUTE * 1000 * MINUTES
  do await round(storage, random, sums)
  while (performance.now() < end)
  scope.diagnostic([...sums].map(([name, value]) => `${value} ${name}`).join(', '))
  for (const [name, value] of sums) assert.ok(value > 0, `there were ${name}`)
}

const STORAGES: readonly Storage[] = ['memory', 'a sparse file']

for (const storage of STORAGES) {
  test(
    `the four laws hold for every reply, whatever fails wherever, over ${storage}`,
    {
      timeout: 60_000 + SECONDS_PER_MINUTE * 1000 * MINUTES * 2,
    },
    (scope) => play(scope, storage),
  )
}
