// The scenario that candor exists for: a 1 GB sparse image on a 200 MB disk, written to its end. Law: the client's list
// of failed requests is the kernel's list of failed writes, and what was acknowledged is there.
import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type Client, NBD_ENOSPC } from 'nbd-protocol'
import { temporaryFolder } from '../support/candor.js'
import {
  attach,
  errorsCounted,
  exportState,
  KIB,
  lastFirst,
  MIB,
  refused,
  type Scope,
  serve,
  stamped,
} from '../support/faults.js'
import {
  needsLibnbd,
  qemuPattern,
  startLibnbd,
  startQemuIo,
  type WritingClient,
  type Written,
} from '../support/faults-clients.js'
import { type HostWrite, readTrace, straceInto } from '../support/faults-strace.js'
import { mountLoopDisk, mountMemory, sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'

const IMAGE_BYTES = 1024 * MIB
const DISK_MIB = 200
const FILLER_BYTES = 24 * MIB
const REWRITTEN_BYTES = 16 * MIB
const LOG_LINES_MAX = 50

interface Scenario {
  readonly requestBytes: number
  readonly fua: boolean
  start(scope: Scope, uri: string): Promise<WritingClient>
  /** What the client writes. */
  content(offset: number, length: number, round: number): Buffer
}

const libnbd = (requestBytes: number): Scenario => ({
  requestBytes,
  fua: false,
  start: (scope, uri) => startLibnbd(scope, uri, 16),
  content: stamped,
})

const qemuIo: Scenario = {
  requestBytes: MIB,
  fua: true,
  start: startQemuIo,
  content: (offset, length, round) => Buffer.alloc(length, qemuPattern(offset, round)),
}

test(
  'qemu-io writes 1 MiB after 1 MiB past the end of the disk, and hears of every write that failed, until space is freed',
  {
    skip: needsRoot('strace', 'qemu-io', 'mkfs.ext4', 'losetup'),
  },
  (t) => fillTheDisk(t, qemuIo),
)

for (const requestBytes of [64 * KIB, 256 * KIB]) {
  test(
    `libnbd with 16 requests of ${requestBytes / KIB} KiB in flight hears of every write that failed, until space is freed`,
    {
      skip: needsLibnbd() || needsRoot('strace', 'mkfs.ext4', 'losetup'),
    },
    (t) => fillTheDisk(t, libnbd(requestBytes)),
  )
}

// Memory is given out page by page, so that the kernel takes a part of a request and then no more.
test('a request that landed in part fails as a whole, is counted once, and can be written again', {
  skip: needsRoot('strace'),
}, async (t) => {
  const scope = lastFirst(t)
  const memory = mountMemory(scope, 'tmpfs', 'size=8m')
  const image = sparseFile(join(memory.folder, 'disk.img'), 16 * MIB)
  const filler = join(memory.folder, 'filler')
  writeFileSync(filler, Buffer.alloc(MIB / 2))
  const trace = traceFile(scope)
  const candor = await serve(scope, [image], { wrapper: straceInto(trace) })
  const client = await attach(candor)

  const offsets = Array.from({ length: 16 }, (_, index) => index * MIB)
  const results = await Promise.allSettled(offsets.map((offset) => client.write(offset, stamped(offset, MIB))))
  const failed = offsets.filter((_, index) => results[index]?.status === 'rejected')
  assert.deepEqual(failed, offsets.slice(7))
  await refused(client.write(7 * MIB, stamped(7 * MIB, MIB)), NBD_ENOSPC)
  const labels = { export: 'disk.img', command: 'write', errno: 'ENOSPC' }
  assert.equal(await errorsCounted(candor, labels), failed.length + 1)
  assert.equal((await candor.metrics()).get('candor_written_bytes_total{export="disk.img"}'), 7 * MIB)

  rmSync(filler)
  await client.write(7 * MIB, stamped(7 * MIB, MIB, 2))
  for (const offset of offsets.slice(0, 8)) {
    assert.equal(stamped(offset, MIB, offset === 7 * MIB ? 2 : 0).compare(await client.read(offset, MIB)), 0)
  }
  assert.equal((await candor.stop()).code, 0)

  const torn = readTrace(trace, image).filter(({ offset }) => offset >= 7 * MIB && offset < 8 * MIB)
  const [short, refusal] = torn
  assert.ok(short && short.landed > 0 && short.landed < MIB, 'the kernel took a part of the request')
  assert.deepEqual(refusal && [refusal.offset, refusal.errno], [7 * MIB + short.landed, 'ENOSPC'])
})

async function fillTheDisk(t: TestContext, scenario: Scenario): Promise<void> {
  const scope = lastFirst(t)
  const { requestBytes } = scenario
  const disk = mountLoopDisk(scope, { type: 'ext4', sizeMiB: DISK_MIB })
  const image = join(disk.folder, 'disk.img')
  const filler = join(disk.folder, 'filler')
  writeFileSync(filler, Buffer.alloc(FILLER_BYTES))
  const trace = traceFile(scope)
  const candor = await serve(scope, [image, '--create', '1G'], { wrapper: straceInto(trace) })
  const client = await scenario.start(scope, candor.uris[0] ?? '')

  const results = [...(await client.write(0, IMAGE_BYTES, requestBytes))]
  assertDiskIsFull(results)
  assert.equal(await client.flush(), undefined, 'a full disk loses nothing, so syncs go on')
  const failed = results.filter(({ errno }) => errno !== undefined)
  const labels = { export: 'disk.img', command: 'write', errno: 'ENOSPC' }
  assert.equal(await errorsCounted(candor, labels), failed.length)

  rmSync(filler)
  disk.settle()
  const rewritten: Written[] = []
  for (const { offset } of failed.slice(0, REWRITTEN_BYTES / requestBytes)) {
    rewritten.push(...(await client.write(offset, offset + requestBytes, requestBytes, 2)))
  }
  assert.ok(rewritten.length > 0 && rewritten.every(({ errno }) => errno === undefined))
  assert.equal(await client.flush(), undefined)
  await assertReadsBack(await attach(candor), scenario, results, 0)
  await assertReadsBack(await attach(candor), scenario, rewritten, 2)

  assert.equal(await errorsCounted(candor, labels), failed.length)
  assert.equal(await exportState(candor, 'disk.img'), 'ok')
  const { code, stderr } = await candor.stop()
  assert.equal(code, 0)
  const lines = stderr.trim().split('\n').length
  assert.ok(lines < LOG_LINES_MAX, `${lines} lines of log for ${failed.length} errors`)

  const writes = readTrace(trace, image)
  const asked = clientVerdicts([...results, ...rewritten])
  const plain = writes.filter(({ durable }) => !durable)
  assert.deepEqual(hostVerdicts(plain, requestBytes), asked)
  // The second half of a durable write comes after the first has succeeded, and never after it has failed.
  const durable = writes.filter((write) => write.durable).map(({ offset }) => offset)
  const acknowledged = [...results, ...rewritten].filter(({ errno }) => errno === undefined)
  assert.deepEqual(durable, scenario.fua ? acknowledged.map(({ offset }) => offset) : [])
}

function traceFile(scope: Scope): string {
  const folder = temporaryFolder()
  scope.after(() => folder.remove())
  return join(folder.path, 'trace')
}

function assertDiskIsFull(results: readonly Written[]): void {
  const acknowledged = results.filter(({ errno }) => errno === undefined)
  const bytes = acknowledged.reduce((sum, { length }) => sum + length, 0)
  assert.ok(bytes > 100 * MIB && bytes < DISK_MIB * MIB, `${bytes} bytes were acknowledged`)
  for (const { offset, errno } of results) assert.ok(errno === undefined || errno === 'ENOSPC', `${errno} at ${offset}`)
}

/** What each request came to on the host, by its offset and in order: an errno's name, or undefined when all landed. */
type Verdicts = ReadonlyMap<number, readonly (string | undefined)[]>

function clientVerdicts(results: readonly Written[]): Verdicts {
  const verdicts = new Map<number, (string | undefined)[]>()
  for (const { offset, errno } of results) verdicts.set(offset, [...(verdicts.get(offset) ?? []), errno])
  return verdicts
}

/** A request ends on the host with the write that fails, or with the one that reaches its end. */
function hostVerdicts(writes: readonly HostWrite[], requestBytes: number): Verdicts {
  const results: Written[] = []
  const reached = new Map<number, number>()
  for (const { offset, landed, errno } of writes) {
    const start = offset - (offset % requestBytes)
    if (offset !== start) assert.equal(offset, reached.get(start), 'a short write is continued where it stopped')
    const end = offset + landed
    if (errno === undefined && end < start + requestBytes) reached.set(start, end)
    else {
      reached.delete(start)
      results.push({ offset: start, length: requestBytes, errno })
    }
  }
  assert.deepEqual([...reached], [], 'no request stopped half-way without an error')
  return clientVerdicts(results)
}

const READS_AT_ONCE = 16

async function assertReadsBack(
  client: Client,
  scenario: Scenario,
  results: readonly Written[],
  round: number,
): Promise<void> {
  const acknowledged = results.filter(({ errno }) => errno === undefined)
  for (let at = 0; at < acknowledged.length; at += READS_AT_ONCE) {
    const some = acknowledged.slice(at, at + READS_AT_ONCE)
    await Promise.all(
      some.map(async ({ offset, length }) => {
        const expected = scenario.content(offset, length, round)
        assert.equal(expected.compare(await client.read(offset, length)), 0, `the data at ${offset} differ`)
      }),
    )
  }
  await client.disconnect()
}
