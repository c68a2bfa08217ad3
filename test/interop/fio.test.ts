// fio's nbd engine: thousands of requests in flight at random, each block read back with its check sum and its place.
import assert from 'node:assert/strict'
import { eachAttachment, MIB, runTool, useTool } from '../support/interop.js'
import { changeByte } from '../support/interop-images.js'

interface Direction {
  readonly total_ios: number
  readonly io_bytes: number
}

interface FioJob {
  readonly error: number
  readonly read: Direction
  readonly write: Direction
}

/** fio with verification, and without its own files. The sequence of its requests is the same in every run. */
function fioWords(uri: string, words: readonly string[]): string[] {
  return [
    ...['--name=interop', '--ioengine=nbd', `--uri=${uri}`, '--thread', '--output-format=json', '--randrepeat=1'],
    ...['--verify=crc32c', '--verify_fatal=1', '--verify_dump=0', '--verify_state_save=0', ...words],
  ]
}

async function fio(uri: string, words: readonly string[]): Promise<readonly FioJob[]> {
  const output = await useTool('fio', fioWords(uri, words))
  // The engine greets the server on standard output.
  const { jobs }: { readonly jobs: readonly FioJob[] } = JSON.parse(output.slice(output.indexOf('{')))
  for (const { error } of jobs) assert.equal(error, 0, output)
  return jobs
}

/** All that was written was read again. */
function assertVerified(jobs: readonly FioJob[], bytes: number): void {
  for (const { read, write } of jobs) {
    assert.equal(write.io_bytes, bytes)
    assert.equal(read.io_bytes, bytes)
    assert.equal(read.total_ios, write.total_ios)
  }
}

eachAttachment.test('fio finds what it wrote at random in 4 KiB blocks, 32 at a time', ['fio'], async (scope) => {
  const image = scope.path('disk.img')
  const served = await scope.serve([`disk=${image}`, '--create', '32M'])
  const uri = served.uri('disk')
  const words = ['--rw=randwrite', '--bs=4k', '--iodepth=32', '--size=32M']
  assertVerified(await fio(uri, words), 32 * MIB)
  await fio(uri, [...words, '--verify_only=1'])
  // One byte changed behind the server's back: the verification that passed above is able to fail.
  changeByte(image, 17 * MIB + 100)
  const { code, stderr } = await runTool('fio', fioWords(uri, [...words, '--verify_only=1']))
  assert.notEqual(code, 0)
  assert.match(stderr, new RegExp(`verify failed at file .* offset ${17 * MIB}`))
})

eachAttachment.test(
  'fio finds what it wrote in pieces of 512 bytes to 256 KiB, with syncs and trims between them',
  ['fio'],
  async (scope) => {
    const watched = ['--http', '127.0.0.1:0']
    const served = await scope.serve([`disk=${scope.path('disk.img')}`, '--create', '64M', ...watched])
    const mixed = ['--bsrange=512-256k', '--iodepth=16', '--size=32M', '--fsync=64']
    assertVerified(await fio(served.uri('disk'), ['--rw=randwrite', ...mixed]), 32 * MIB)
    assertVerified(await fio(served.uri('disk'), ['--rw=write', ...mixed, '--offset=32M']), 32 * MIB)
    await fio(served.uri('disk'), ['--rw=randtrimwrite', '--bs=64k', '--iodepth=16', '--size=32M'])
    const samples = await served.candor.metrics()
    const requests = (command: string) =>
      samples.get(`candor_requests_total{export="disk",frontend="nbd",command="${command}"}`)
    assert.equal(requests('trim'), (32 * MIB) / 65536)
    assert.ok((requests('flush') ?? 0) > 0)
    assert.equal(samples.get('candor_written_bytes_total{export="disk"}'), 96 * MIB)
    assert.equal(samples.get('candor_requests_in_flight{export="disk"}'), 0)
    assert.deepEqual(
      [...samples.keys()].filter((name) => name.startsWith('candor_errors_total')),
      [],
    )
  },
)

eachAttachment.test('two jobs of fio share an export, each in its own half', ['fio'], async (scope) => {
  const served = await scope.serve([`disk=${scope.path('disk.img')}`, '--create', '64M'])
  const words = ['--rw=randwrite', '--bsrange=4k-64k', '--iodepth=16', '--size=16M', '--offset_increment=32M']
  const jobs = await fio(served.uri('disk'), [...words, '--numjobs=2'])
  assert.equal(jobs.length, 2)
  assertVerified(jobs, 16 * MIB)
})

eachAttachment.test('fio reads while it writes at depth 64 without a wrong block', ['fio'], async (scope) => {
  const served = await scope.serve([`disk=${scope.path('disk.img')}`, '--create', '32M'])
  const words = ['--rw=randrw', '--rwmixread=50', '--bs=4k', '--iodepth=64', '--size=32M']
  const [job] = await fio(served.uri('disk'), words)
  assert.ok(job !== undefined && job.read.total_ios >= job.write.total_ios && job.write.total_ios > 1000)
})
