// A guest that writes more than the host has space for, in every combination of attachment, policies and I/O engine.
// Law: what the guest may be told follows from the combination alone, and server, QEMU and guest agree on what happened.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { lastFirst, MIB, type Scope } from './faults.js'
import { type GuestRun, type RunningGuest, skipWithoutGuests, startGuest } from './guest.js'
import type { Attachment, WriteErrors } from './guest-attachments.js'
import { filesInside, patternBytes, patternDrive, scratchFolder, sha256 } from './guest-images.js'
import {
  assertLedgerAgrees,
  leaveFree,
  partitionedImage,
  partitionOf,
  SCENARIO_TOOLS,
  type ServedDisk,
  serveDisk,
  until,
} from './guest-scenario.js'
import { type LoopDisk, mountLoopDisk } from './loop-disk.js'
import { needsRoot } from './requirements.js'

/** For the `skip` option of a test. */
export function skipWithoutFullHosts(): string | false {
  return needsRoot(...SCENARIO_TOOLS) || skipWithoutGuests()
}

const IMAGE_MIB = 1024
const HOST_MIB = 320
const ENLARGED_MIB = 1400
/** A file system of 1 GB takes some 35 MiB of these. */
const FREE_MIB = 64
const BIG = patternBytes(64 * MIB)
const KEPT_MIB = 4
/** More than is left then. */
const TOO_MUCH_MIB = 40

/** `--on-enospc`: held for longer than the test takes, or for so short that the time runs out. */
export type SpacePolicy = 'report' | 'hold=5m' | 'hold=500ms'
export const SPACE_POLICIES: readonly SpacePolicy[] = ['report', 'hold=5m', 'hold=500ms']

export interface Combination {
  readonly attachment: Attachment
  readonly onEnospc: SpacePolicy
  /** QEMU's policy; undefined where QEMU does not send the requests. */
  readonly werror: WriteErrors | undefined
  /** The server's `--io-engine`; undefined: its default. */
  readonly engine?: string | undefined
}

interface FullHost {
  readonly host: LoopDisk
  readonly image: string
  readonly disk: ServedDisk
  readonly combination: Combination
}

/** Plays the scenario through to the end that the combination has to have. */
export async function playFullHost(t: TestContext, combination: Combination): Promise<void> {
  const scope = lastFirst(t)
  const full = await almostFull(scope, combination)
  if (combination.onEnospc === 'hold=5m') await playHeld(scope, full)
  else if (combination.werror === 'enospc') await playPaused(scope, full)
  else await playTold(scope, full, t)
}

async function almostFull(scope: Scope, combination: Combination): Promise<FullHost> {
  const host = mountLoopDisk(scope, { type: 'xfs', sizeMiB: HOST_MIB })
  const image = partitionedImage(host.folder, IMAGE_MIB)
  leaveFree(host, FREE_MIB)
  const engine = combination.engine === undefined ? [] : ['--io-engine', combination.engine]
  const state = join(scratchFolder(scope), 'state')
  const disk = await serveDisk(scope, image, state, '--on-enospc', combination.onEnospc, ...engine)
  return { host, image, disk, combination }
}

async function start(scope: Scope, { disk, combination }: FullHost, script: string): Promise<RunningGuest> {
  const { attachment, werror } = combination
  const guest = await startGuest({
    qemuArguments: [...patternDrive(scope, BIG), ...attachment.qemuArguments(disk, werror)],
    script: `${attachment.attach(disk)}\n${script}`,
  })
  scope.after(() => guest.powerCut())
  return guest
}

/** Writes more than there is space for, and reads it back from the disk. */
function fillScript({ partition, detach }: Attachment): string {
  return `
    mkfs.ext3 -q ${partition}
    mount -t ext3 ${partition} /mnt
    mkdir /mnt/tree
    dd if=/dev/vda of=/mnt/tree/big bs=1M conv=fsync
    echo 3 >/proc/sys/vm/drop_caches
    sha256sum /mnt/tree/big
    umount /mnt
    e2fsck -f -n ${partition}
    ${detach}
  `
}

/** Keeps something that is not touched any more, and then writes more than there is space for, and must be told. */
function toldScript({ partition }: Attachment): string {
  return `
    mkfs.ext3 -q ${partition}
    mount -t ext3 ${partition} /mnt
    mkdir /mnt/kept
    dd if=/dev/vda of=/mnt/kept/pattern bs=1M count=${KEPT_MIB}
    umount /mnt
    mount -t ext3 ${partition} /mnt
    ! dd if=/dev/vda of=/mnt/big bs=1M count=${TOO_MUCH_MIB} conv=fsync 2>&1
  `
}

function words(guest: GuestRun): string {
  return `${guest.output}\n${guest.kernelLog.slice(-4000)}`
}

function assertComplete(scope: Scope, guest: GuestRun, image: string): void {
  assert.equal(guest.status, 0, words(guest))
  assert.doesNotMatch(guest.kernelLog, /I\/O error|Other side returned error|EXT4-fs error|exception Emask/)
  assert.ok(guest.output.includes(`${sha256(BIG)}  /mnt/tree/big\n`), guest.output)
  assert.deepEqual(filesInside(scope, partitionOf(image), '/tree'), { big: sha256(BIG) })
}

async function machineStatus(guest: RunningGuest): Promise<string> {
  return ((await guest.qmp('query-status')) as { status: string }).status
}

/** The guest waits until the host is enlarged, and nobody but the server knows why. */
async function playHeld(scope: Scope, full: FullHost): Promise<void> {
  const { host, image, disk, combination } = full
  const guest = await start(scope, full, fillScript(combination.attachment))
  await until(guest, 'a write was held', async () => (await disk.held()) > 0)
  assert.equal(await machineStatus(guest), 'running')
  host.grow(ENLARGED_MIB)
  const run = await guest.finished
  assert.equal(await disk.held(), 0)
  await disk.stop()
  assert.deepEqual(await disk.ledger(), [])
  assertComplete(scope, run, image)
}

/** QEMU is told, pauses the guest until the host is enlarged, and the guest never knows. */
async function playPaused(scope: Scope, full: FullHost): Promise<void> {
  const { host, image, disk, combination } = full
  const guest = await start(scope, full, fillScript(combination.attachment))
  await until(guest, 'QEMU paused it', async () => (await machineStatus(guest)) === 'io-error')
  const blocks = (await guest.qmp('query-block')) as { 'io-status'?: string }[]
  const troubled = blocks.map((block) => block['io-status']).filter((status) => status !== undefined && status !== 'ok')
  assert.deepEqual(troubled, ['nospace'])
  host.grow(ENLARGED_MIB)
  await guest.qmp('cont')
  const run = await guest.finished
  assertComplete(scope, run, image)
  const { failures } = await assertLedgerAgrees(disk, run.kernelLog, combination.attachment.device)
  assert.ok(failures > 0)
}

/** The guest's program is told, at the sectors that the ledger names, and what it had before is unharmed. */
async function playTold(scope: Scope, full: FullHost, t: TestContext): Promise<void> {
  const { image, disk, combination } = full
  const { attachment, onEnospc } = combination
  const guest = await start(scope, full, toldScript(attachment))
  if (onEnospc !== 'report') await until(guest, 'a write was held', async () => (await disk.held()) > 0)
  const run = await guest.finished
  assert.equal(run.status, 0, words(run))
  assert.match(run.output, /^dd: .*Input\/output error$/m)
  assert.match(run.kernelLog, attachment.errorLogged)
  const { failures, sectors } = await assertLedgerAgrees(disk, run.kernelLog, attachment.device)
  t.diagnostic(`${failures} writes failed, ${sectors} sectors in the guest's log`)
  assert.ok(sectors > 0, words(run))
  assert.deepEqual(filesInside(scope, partitionOf(image), '/kept'), {
    pattern: sha256(BIG.subarray(0, KEPT_MIB * MIB)),
  })
}
