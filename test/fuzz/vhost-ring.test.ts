// A guest that writes anything anywhere in its memory, rings and tables above all, from two processors at once. Law under
// test: no crash, no hang, no byte outside of the region touched, each request told of answered, and another guest served.
// Run it under the sanitizers (test/native/sanitizers.test.ts) to see what is read as well.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { closeSync, readSync } from 'node:fs'
import { describe, test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { inflightBytes, memoryFile } from '../../backends/index.js'
import { type Random, seededRandom } from '../support/fuzz-random.js'
import type { RingDriver } from '../support/vhost-drivers.js'
import { GUEST_BASE, GuestMemory, USER_BASE } from '../support/vhost-guest.js'
import { RING_KINDS } from '../support/vhost-kinds.js'
import { BLK_IN, BLK_OUT, blockRequest, RamDisk } from '../support/vhost-ram-disk.js'
import type { Scribble } from '../support/vhost-scribbler.js'

const BYTES = 64 * 1024
/** Neither whole pages nor far from them: what lies beside the region is in the same page. */
const MARGIN = 4096 + 48
const SIZE = 8
const CASES = 120
const RACES = 6
const RACE_RESETS = 60
const RACE_STEPS = 800
const SCRIBBLER = new URL('../support/vhost-scribbler.js', import.meta.url)

function hostileNumber(random: Random): bigint {
  const end = GUEST_BASE + BigInt(BYTES)
  const near = random.pick([0n, GUEST_BASE, end, end - 512n, 2n ** 64n, 2n ** 63n, 2n ** 32n, USER_BASE])
  return BigInt.asUintN(64, near + BigInt(random.below(64)) - 32n)
}

function areas({ descriptors, driver, device, size }: RingDriver): readonly (readonly [number, number])[] {
  const at = (address: bigint) => Number(address - USER_BASE)
  return [
    [at(descriptors), 16 * size],
    [at(driver), 6 + 2 * size],
    [at(device), 6 + 8 * size],
  ]
}

/** A few bytes of the ring, or of anything. */
function spoil(random: Random, guest: GuestMemory, ring: RingDriver): void {
  const [start, length] = random.onceIn(5) ? ([0, 4096] as const) : random.pick(areas(ring))
  const at = start + random.below(length)
  const number = Buffer.alloc(8)
  number.writeBigUInt64LE(hostileNumber(random))
  const bytes = random.onceIn(2) ? random.bytes(1 + random.below(4)) : number
  guest.write(at, bytes.subarray(0, Math.min(bytes.length, BYTES - at)))
}

function requests(random: Random, disk: RamDisk, count: number): void {
  for (let index = 0; index < count; index++) {
    const type = random.pick([BLK_IN, BLK_OUT])
    const pieces = Array.from({ length: 1 + random.below(2) }, () => 1 + random.below(700))
    try {
      disk.ring.add(blockRequest(disk.guest, type, random.below(4), pieces).chain, random.onceIn(2))
    } catch {
      return
    }
  }
}

function open(driverOf: (guest: GuestMemory, size: number) => RingDriver, keep: boolean, log?: number): RamDisk {
  const guest = new GuestMemory(BYTES, MARGIN)
  const ring = driverOf(guest, SIZE)
  const size = inflightBytes(SIZE, ring.packed)
  const inflight = log === undefined ? undefined : { fd: log, offset: 0, size }
  const disk = new RamDisk(guest, ring, { keep, content: Buffer.alloc(16 * 1024), queue: { inflight } })
  disk.queue.start()
  return disk
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve))
}

/** What lies in the file before and behind the region. */
function outside({ fd }: GuestMemory): Buffer {
  const bytes = Buffer.alloc(2 * MARGIN)
  readSync(fd, bytes, 0, MARGIN, 0)
  readSync(fd, bytes, MARGIN, MARGIN, MARGIN + BYTES)
  return bytes
}

function end(disk: RamDisk): void {
  for (const { id } of disk.taken.splice(0)) assert.throws(() => disk.queue.complete(id, 0, 0), /not out/)
  assert.ok(outside(disk.guest).every((byte) => byte === 0))
  disk.close()
  disk.guest.close()
}

for (const [kind, driverOf] of RING_KINDS) {
  describe(`a ${kind} ring in hostile hands`, () => {
    test('spoilt anywhere, it breaks or is served', async (scope) => {
      const random = seededRandom(scope)
      const neighbour = open(driverOf, false)
      let broken = 0
      for (let round = 0; round < CASES; round++) {
        const keep = random.onceIn(2)
        const log = random.onceIn(2) ? memoryFile(inflightBytes(SIZE, kind === 'packed')) : undefined
        const disk = open(driverOf, keep, log)
        for (let step = 0; step < 6; step++) {
          requests(random, disk, 1 + random.below(3))
          for (let spoilt = random.below(3); spoilt > 0; spoilt--) spoil(random, disk.guest, disk.ring)
          disk.kickNow()
          await turns(2)
          if (keep) for (const taken of disk.taken) disk.serve(taken)
          if (keep) disk.taken.length = 0
          disk.queue.notify()
          disk.ring.used()
        }
        broken += disk.broken === undefined ? 0 : 1
        end(disk)
        if (log !== undefined) closeSync(log)
      }
      assert.ok(broken > CASES / 10, `only ${broken} of ${CASES} were broken`)
      assert.ok(broken < CASES, 'all were broken')
      neighbour.ring.add(blockRequest(neighbour.guest, BLK_IN, 0, [512]).chain)
      neighbour.kickNow()
      await neighbour.until(() => neighbour.taken.length === 1)
      end(neighbour)
    })

    test('written by another processor while it is read, it breaks or is served', async (scope) => {
      const random = seededRandom(scope)
      let broken = 0
      for (let race = 0; race < RACES; race++) {
        let disk = open(driverOf, false)
        const places = Array.from({ length: 1 + random.below(4) }, () => {
          const [start, length] = random.pick(areas(disk.ring))
          return MARGIN + start + 8 * random.below(length / 8)
        })
        const values = Array.from({ length: 50 }, () => hostileNumber(random))
        const stop = new Int32Array(new SharedArrayBuffer(4))
        const workerData: Scribble = { fd: disk.guest.fd, bytes: BYTES + 2 * MARGIN, places, values, stop }
        const scribbler = new Worker(SCRIBBLER, { workerData })
        const exited = once(scribbler, 'exit')
        try {
          await once(scribbler, 'message')
          for (let step = 0, resets = 0; step < RACE_STEPS && resets < RACE_RESETS; step++) {
            requests(random, disk, 1)
            disk.kickNow()
            await turns(1)
            // A ring that nobody answers any more is reset as well: its indexes may have been written over.
            if (disk.broken === undefined && step % 16 !== 15) continue
            resets += 1
            broken += disk.broken === undefined ? 0 : 1
            disk.close()
            disk.guest.reset()
            disk = new RamDisk(disk.guest, driverOf(disk.guest, SIZE), { content: disk.content })
            disk.queue.start()
          }
        } finally {
          Atomics.store(stop, 0, 1)
        }
        await exited
        end(disk)
      }
      scope.diagnostic(`${broken} queues were broken`)
    })
  })
}
