// The scenario of 2006, as the tests with guests set it up: a small host file system, on it a large sparse image with one
// partition, a server, and what guest and server say of the writes that failed.
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { LedgerEntry } from '../../server/state/ledger.js'
import type { RunningCandor } from './candor.js'
import { command, errorsCounted, MIB, type Scope, serve } from './faults.js'
import type { RunningGuest } from './guest.js'
import { scratchFolder } from './guest-images.js'
import { run, sparseFile } from './loop-disk.js'

export const EXPORT_NAME = 'disk'
/** Programs of the host that the scenario needs beside those of every guest. */
export const SCENARIO_TOOLS = ['losetup', 'setpriv', 'fallocate', 'mkfs.ext4', 'mkfs.xfs', 'resize2fs']
const SECTOR_BYTES = 512
const PARTITION_SECTOR = 2048
/** Where the image's only partition starts. */
export const PARTITION_OFFSET = PARTITION_SECTOR * SECTOR_BYTES
/** What user networking calls the host's loopback. */
const HOST_IN_GUEST = '10.0.2.2'
const HELD = `candor_requests_held{export="${EXPORT_NAME}"}`
const IN_FLIGHT = `candor_requests_in_flight{export="${EXPORT_NAME}"}`
const LOOK_AGAIN_MS = 100

/** A sparse image whose partition table, of which it takes one page of the host, knows one partition: all but 1 MiB. */
export function partitionedImage(folder: string, sizeMiB: number): string {
  const path = sparseFile(join(folder, 'disk.img'), sizeMiB * MIB)
  const table = Buffer.alloc(SECTOR_BYTES)
  const entry = 446
  table.writeUInt8(0x83, entry + 4)
  table.writeUInt32LE(PARTITION_SECTOR, entry + 8)
  table.writeUInt32LE((sizeMiB * MIB) / SECTOR_BYTES - PARTITION_SECTOR, entry + 12)
  table.writeUInt16LE(0xaa55, 510)
  writeFileSync(path, table, { flag: 'r+' })
  return path
}

/** Takes the space of a file system but for this much, so that less has to be written until it is full. Returns what took it. */
export function leaveFree(disk: { readonly folder: string; freeBytes(): number }, freeMiB: number): string {
  const filler = join(disk.folder, 'filler')
  run('fallocate', '-l', String(disk.freeBytes() - freeMiB * MIB), filler)
  return filler
}

export interface ServedDisk {
  readonly candor: RunningCandor
  readonly nbdClientArguments: string
  /** The value of `file=` in QEMU's -drive. */
  readonly qemuFile: string
  /** The vhost-user socket. */
  readonly guestSocket: string
  /** How many writes wait for space. */
  held(): Promise<number>
  /** Resolves when storage is done with every request, and with those whose connection is gone as well. */
  idle(): Promise<void>
  /** What `candor errors --json` prints. */
  ledger(): Promise<readonly LedgerEntry[]>
  /** Ends the server, and demands a clean end. */
  stop(): Promise<void>
}

/** Serves the image. The state directory is the caller's: as in real life, it is not on the file system that fills up. */
export async function serveDisk(
  scope: Scope,
  image: string,
  stateDirectory: string,
  ...args: readonly string[]
): Promise<ServedDisk> {
  const socket = join(scratchFolder(scope), 'nbd.sock')
  const guestSocket = join(scratchFolder(scope), 'guest.sock')
  const listen = ['tcp:127.0.0.1:0', `unix:${socket}`, `vhost-user:${guestSocket}`].flatMap((at) => ['--listen', at])
  const candor = await serve(scope, [`${EXPORT_NAME}=${image}`, ...listen, '--state-dir', stateDirectory, ...args])
  const port = candor.uris.map((uri) => /^nbd:\/\/[^/]*:(\d+)/.exec(uri)?.[1]).find((found) => found !== undefined)
  return {
    candor,
    nbdClientArguments: `${HOST_IN_GUEST} ${port} -N ${EXPORT_NAME}`,
    qemuFile: `nbd:unix:${socket}:exportname=${EXPORT_NAME}`,
    guestSocket,
    held: async () => (await candor.metrics()).get(HELD) ?? 0,
    idle: async () => {
      while (((await candor.metrics()).get(IN_FLIGHT) ?? 0) > 0) await pause(LOOK_AGAIN_MS)
    },
    ledger: () => readLedger(stateDirectory),
    stop: async () => {
      const { code, stderr } = await candor.stop()
      assert.equal(code, 0, stderr)
    },
  }
}

async function readLedger(stateDirectory: string): Promise<readonly LedgerEntry[]> {
  const { code, stdout, stderr } = await command(['errors', EXPORT_NAME, '--json', '--state-dir', stateDirectory])
  assert.equal(code, 0, stderr)
  return JSON.parse(stdout) as LedgerEntry[]
}

/** Looks until it is so, or the guest has ended. */
export async function until(guest: RunningGuest, what: string, condition: () => Promise<boolean>): Promise<void> {
  let ended = false
  const end = () => {
    ended = true
  }
  guest.finished.then(end, end)
  while (!(await condition())) {
    if (ended) {
      const { output, kernelLog } = await guest.finished
      throw new Error(`the guest ended before ${what}\n${output}\n${kernelLog.slice(-4000)}`)
    }
    await pause(LOOK_AGAIN_MS)
  }
}

/** A write that failed for the guest's kernel; where only its start was logged, `length` is one sector. In bytes. */
interface FailedWrite {
  readonly offset: number
  readonly length: number
}

/** The writes of which the guest's kernel logged the failure. It limits the rate, so that these are a sample. */
function failedWrites(kernelLog: string, device: string): FailedWrite[] {
  // A SCSI disk's driver, which IDE disks have as well, logs the whole command before: its LBA and how many blocks.
  const commands = [...kernelLog.matchAll(/CDB: Write\(10\) 2a \w\w ((?:\w\w ){4})\w\w (\w\w \w\w)/g)]
  const number = (bytes = '') => Number.parseInt(bytes.replaceAll(' ', ''), 16)
  const lengths = new Map(commands.map(([, start, count]) => [number(start), number(count)]))
  const lines = kernelLog.matchAll(new RegExp(`I/O error, dev ${device}, sector (\\d+) op 0x1:\\(WRITE\\)`, 'g'))
  return [...lines].map((match) => {
    const sector = Number(match[1])
    return { offset: sector * SECTOR_BYTES, length: (lengths.get(sector) ?? 1) * SECTOR_BYTES }
  })
}

/**
 * Asserts that the ledger knows each write of which the guest's kernel logged the failure, and no more failures than the
 * metric. Returns how many were compared. A write of an IDE disk that fell back to PIO reaches the server in pieces, of
 * which the first ones may have had space: then the ledger names the others.
 */
export async function assertLedgerAgrees(
  disk: ServedDisk,
  kernelLog: string,
  device: string,
): Promise<{ sectors: number; failures: number }> {
  // A server that has noticed the end of the guest counts no more of its requests.
  while (((await disk.candor.metrics()).get('candor_connections') ?? 0) > 0) await pause(LOOK_AGAIN_MS)
  const metric = { export: EXPORT_NAME, command: 'write', errno: 'ENOSPC' }
  const failures = await errorsCounted(disk.candor, metric)
  // The ledger is complete when the server has ended.
  await disk.stop()
  const entries = await disk.ledger()
  for (const entry of entries) assert.deepEqual([entry.command, entry.errno], ['write', 'ENOSPC'])
  assert.equal(
    entries.reduce((sum, { count }) => sum + count, 0),
    failures,
  )
  const writes = failedWrites(kernelLog, device)
  for (const write of writes) {
    const known = entries.some((entry) => overlap(entry, write))
    assert.ok(known, `the guest's kernel saw the write at ${write.offset} fail, the ledger does not know it`)
  }
  return { sectors: writes.length, failures }
}

function overlap(one: FailedWrite, other: FailedWrite): boolean {
  return one.offset < other.offset + other.length && other.offset < one.offset + one.length
}

/** The partition, in the words of e2fsprogs on the host. */
export function partitionOf(image: string): string {
  return `${image}?offset=${PARTITION_OFFSET}`
}

/** The lines of a guest's script that attach nbd0 and find its partition. */
export function attachScript(disk: ServedDisk, ...options: readonly string[]): string {
  return ['nbd-client', disk.nbdClientArguments, ...options, '/dev/nbd0', '\n blockdev --rereadpt /dev/nbd0'].join(' ')
}
