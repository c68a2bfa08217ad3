// What a guest's requests hold in copies. Law under test: all its rings together keep to the bound, and each has its turn.
import assert from 'node:assert/strict'
import { closeSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { VIRTIO_BLK_S_IOERR as IOERR, VIRTIO_BLK_S_OK as OK, VIRTIO_BLK_T_IN } from 'vhost-user-protocol'
import { eventFd } from '../../backends/index.js'
import { Copies, type Waiter } from '../../server/vhost-user/copies.js'
import type { RunningCandor } from '../support/candor.js'
import { command, lastFirst, MIB, type Scope, serve } from '../support/faults.js'
import { scratchFolder } from '../support/guest-images.js'
import { sparseFile } from '../support/loop-disk.js'
import { SplitDriver } from '../support/vhost-drivers.js'
import { GUEST_BASE } from '../support/vhost-guest.js'
import { attachGuest, CACHED } from '../support/vhost-user-guest.js'
import { GuestMachine, type RingPlace } from '../support/vhost-user-machine.js'
import { DISK_BYTES, SECTOR, type ServedGuests, serveGuests, until } from '../support/vhost-user-served.js'

/** READs of guests that storage was asked for. */
async function taken(candor: RunningCandor): Promise<number | undefined> {
  return (await candor.metrics()).get('candor_requests_total{export="disk",frontend="vhost-user",command="read"}')
}

const UNANSWERED = 0xff
const LENGTH = 2 * MIB
/** Storage behind it takes no pieces. */
const NO_PIECES = ['--detect-zeroes', 'on', '--in-flight-bytes-max']

/** A READ of 2 MiB into two places of the guest's memory, by whichever ring; returns how to look at its status. */
function read({ memory }: GuestMachine, { ring, kick }: RingPlace, index: number): () => number {
  const header = memory.allocate(16)
  const bytes = Buffer.alloc(16)
  bytes.writeUInt32LE(VIRTIO_BLK_T_IN)
  bytes.writeBigUInt64LE(BigInt((index * LENGTH) / SECTOR), 8)
  memory.write(header, bytes)
  const [late, early, statusAt] = [memory.allocate(MIB), memory.allocate(MIB), memory.allocate(1)]
  memory.write(statusAt, Uint8Array.of(UNANSWERED))
  const placed = (at: number, length: number, writable = true) => {
    return { address: GUEST_BASE + BigInt(at), length, writable }
  }
  ring.add([placed(header, 16, false), placed(early, MIB), placed(late, MIB), placed(statusAt, 1)])
  writeSync(kick, BigUint64Array.of(1n))
  return () => memory.read(statusAt, 1).readUInt8()
}

type Where = Pick<ServedGuests, 'socket' | 'stateDirectory'>

/** A server whose storage is with the operator, so that READs wait until `resume`; and a guest. */
async function guestThatWaits(scope: Scope, { socket, stateDirectory }: Where) {
  const machine = new GuestMachine()
  scope.after(() => machine.close())
  const front = await attachGuest(socket, machine, CACHED, { log: false })
  scope.after(() => front.close())
  const tell = async (word: string) => {
    assert.equal((await command(['ctl', word, 'disk', '--state-dir', stateDirectory])).code, 0)
  }
  await tell('release')
  /** Requests that the rings have taken in, whether storage was asked or not. */
  const arrived = async (count: number) => {
    const { stdout } = await command(['ctl', 'sessions', '--json', '--state-dir', stateDirectory])
    return (JSON.parse(stdout) as readonly { readonly inFlight?: number }[])[0]?.inFlight === count
  }
  return { machine, front, resume: () => tell('resume'), arrived }
}

/** A guest of two rings: what the one has taken fills the bound, and the other one waits behind it. */
async function twoRings(scope: Scope, served: Where) {
  const { machine, front, resume, arrived } = await guestThatWaits(scope, served)
  const other = { ring: new SplitDriver(machine.memory, 16), kick: eventFd(), call: eventFd() }
  scope.after(() => [other.kick, other.call].map(closeSync))
  await front.startRing(0, 1, other)
  const first = read(machine, machine, 0)
  await until(() => arrived(1))
  const second = read(machine, other, 1)
  await until(() => arrived(2))
  return { front, resume, first, second }
}

test('a READ that storage cannot take in pieces counts by its length, also above 1 MiB, while it waits', async (t) => {
  const scope = lastFirst(t)
  const served = await serveGuests(scope, ...NO_PIECES, '4M')
  const { candor } = served
  const { machine, resume, arrived } = await guestThatWaits(scope, served)
  const statuses = [0, 1, 2, 3].map((index) => read(machine, machine, index))
  await until(() => arrived(4))
  assert.equal(await taken(candor), 2)
  await resume()
  for (const status of statuses) await until(async () => status() === OK)
  assert.equal(await taken(candor), 4)
})

test('the rings of a guest share the bound, and a ring that waits goes on when another has let go', async (t) => {
  const scope = lastFirst(t)
  const served = await serveGuests(scope, ...NO_PIECES, '2M')
  const { candor } = served
  const { resume, first, second } = await twoRings(scope, served)
  assert.equal(await taken(candor), 1)
  await resume()
  for (const status of [first, second]) await until(async () => status() === OK)
  assert.equal(await taken(candor), 2)
})

test('a ring stops although another one holds all that is to be held, and what it had taken in is answered', async (t) => {
  const scope = lastFirst(t)
  const served = await serveGuests(scope, ...NO_PIECES, '2M')
  const { front, resume, first, second } = await twoRings(scope, served)
  assert.equal(await front.stopRing(1), 1)
  assert.deepEqual([first(), second()], [UNANSWERED, IOERR])
  await resume()
  await until(async () => first() === OK)
})

test('a bound that is set under an export goes before the one for all, for its guests too', async (t) => {
  const scope = lastFirst(t)
  const folder = scratchFolder(scope)
  const image = sparseFile(join(folder, 'disk.img'), DISK_BYTES)
  const socket = join(folder, 'guest.sock')
  const stateDirectory = join(folder, 'state')
  const file = join(folder, 'candor.yaml')
  const under = `{ image: ${image}, detect-zeroes: on, in-flight-bytes-max: 4M }`
  writeFileSync(file, `listen: ['vhost-user:${socket}']\nin-flight-bytes-max: 32M\nexports:\n  disk: ${under}\n`)
  const candor = await serve(scope, ['--config', file, '--state-dir', stateDirectory])
  const { machine, resume, arrived } = await guestThatWaits(scope, { socket, stateDirectory })
  const statuses = [0, 1, 2, 3].map((index) => read(machine, machine, index))
  await until(() => arrived(4))
  assert.equal(await taken(candor), 2)
  await resume()
  for (const status of statuses) await until(async () => status() === OK)
})

/** A ring that notes when it is woken. */
function waiter(name: string, woken: string[]): Waiter {
  return { resumeSoon: () => woken.push(name) }
}

test('rings that wait for room have their turns in order, and none passes them', () => {
  const copies = new Copies(100)
  const woken: string[] = []
  const [a, b, c] = ['a', 'b', 'c'].map((name) => waiter(name, woken)) as [Waiter, Waiter, Waiter]
  assert.ok(copies.admits(a), 'who holds nothing may have one of any length')
  copies.hold(150)
  for (const each of [a, b, a]) {
    assert.ok(!copies.admits(each))
    copies.wait(each)
  }
  copies.giveBack(40)
  assert.deepEqual(woken, [], 'there was no room yet')
  copies.giveBack(11)
  assert.deepEqual(woken, ['a'])
  assert.deepEqual([copies.admits(a), copies.admits(b), copies.admits(c)], [true, false, false])
  copies.hold(1)
  copies.leave(a)
  copies.wait(a)
  copies.wake()
  assert.deepEqual(woken, ['a'])
  copies.giveBack(1)
  assert.deepEqual(woken, ['a', 'b'])
  copies.leave(b)
  copies.wake()
  assert.deepEqual(woken, ['a', 'b', 'a'])
  copies.leave(a)
  assert.ok(copies.admits(c))
})
