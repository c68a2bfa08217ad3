// A full host that is enlarged while a guest writes: held writes, a paused QEMU, and the disk errors of an IDE guest.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { lastFirst, MIB, type Scope } from '../support/faults.js'
import { bootGuest, type GuestRun, skipWithoutGuests, startGuest } from '../support/guest.js'
import { filesInside, patternBytes, patternDrive, scratchFolder, sha256 } from '../support/guest-images.js'
import {
  assertLedgerAgrees,
  attachScript,
  leaveFree,
  partitionedImage,
  partitionOf,
  SCENARIO_TOOLS,
  type ServedDisk,
  serveDisk,
  until,
} from '../support/guest-scenario.js'
import { type LoopDisk, mountLoopDisk } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'

const skip = needsRoot(...SCENARIO_TOOLS) || skipWithoutGuests()
const IMAGE_MIB = 1024
const HOST_MIB = 320
const ENLARGED_MIB = 1400
/** A file system of 1 GB takes some 35 MiB of these. */
const FREE_MIB = 64
const BIG = patternBytes(64 * MIB)

interface FullHost {
  readonly host: LoopDisk
  readonly image: string
  readonly disk: ServedDisk
}

async function almostFull(scope: Scope, ...args: readonly string[]): Promise<FullHost> {
  const host = mountLoopDisk(scope, { type: 'xfs', sizeMiB: HOST_MIB })
  const image = partitionedImage(host.folder, IMAGE_MIB)
  leaveFree(host, FREE_MIB)
  const disk = await serveDisk(scope, image, join(scratchFolder(scope), 'state'), ...args)
  return { host, image, disk }
}

/** Writes more than there is space for, and reads it back from the disk. */
function fillScript(partition: string): string {
  return `
    mkfs.ext3 -q ${partition}
    mount -t ext3 ${partition} /mnt
    mkdir /mnt/tree
    dd if=/dev/vda of=/mnt/tree/big bs=1M conv=fsync
    echo 3 >/proc/sys/vm/drop_caches
    sha256sum /mnt/tree/big
    umount /mnt
    e2fsck -f -n ${partition}
  `
}

function assertComplete(scope: Scope, guest: GuestRun, image: string): void {
  assert.equal(guest.status, 0, `${guest.output}\n${guest.kernelLog.slice(-4000)}`)
  assert.doesNotMatch(guest.kernelLog, /I\/O error|Other side returned error|EXT4-fs error/)
  assert.ok(guest.output.includes(`${sha256(BIG)}  /mnt/tree/big\n`), guest.output)
  assert.deepEqual(filesInside(scope, partitionOf(image), '/tree'), { big: sha256(BIG) })
}

test("with --on-enospc hold the guest's dd waits until the host is enlarged, and its data are right", {
  skip,
}, async (t) => {
  const scope = lastFirst(t)
  const { host, image, disk } = await almostFull(scope, '--on-enospc', 'hold=5m')
  const guest = await startGuest({
    qemuArguments: patternDrive(scope, BIG),
    script: `${attachScript(disk)}\n${fillScript('/dev/nbd0p1')}\nnbd-client -d /dev/nbd0`,
  })
  scope.after(() => guest.powerCut())
  await until(guest, 'a write was held', async () => (await disk.held()) > 0)
  host.grow(ENLARGED_MIB)
  const run = await guest.finished
  assert.equal(await disk.held(), 0)
  await disk.stop()
  assert.deepEqual(await disk.ledger(), [])
  assertComplete(scope, run, image)
})

test('QEMU pauses a guest with a virtio disk for want of space, and after cont its data are right', {
  skip,
}, async (t) => {
  const scope = lastFirst(t)
  const { host, image, disk } = await almostFull(scope)
  const guest = await startGuest({
    qemuArguments: [...patternDrive(scope, BIG), '-drive', `if=virtio,format=raw,file=${disk.qemuFile}`],
    script: fillScript('/dev/vdb1'),
  })
  scope.after(() => guest.powerCut())
  await until(guest, 'QEMU paused it', async () => {
    const { status } = (await guest.qmp('query-status')) as { status: string }
    return status === 'io-error'
  })
  const blocks = (await guest.qmp('query-block')) as { device: string; 'io-status'?: string }[]
  const troubled = blocks.filter((block) => block['io-status'] !== 'ok').map((block) => block['io-status'])
  assert.deepEqual(troubled, ['nospace'])
  host.grow(ENLARGED_MIB)
  await guest.qmp('cont')
  const run = await guest.finished
  assertComplete(scope, run, image)
  // What QEMU was told stands in the ledger, though the guest never heard of it.
  const { failures } = await assertLedgerAgrees(disk, run.kernelLog, 'vdb')
  assert.ok(failures > 0)
})

test("the guest's driver of an IDE disk sees the errors of a full host, at the sectors that the ledger names", {
  skip,
}, async (t) => {
  const scope = lastFirst(t)
  const { disk } = await almostFull(scope)
  const run = await bootGuest({
    qemuArguments: [
      ...patternDrive(scope, BIG),
      ...['-drive', `if=ide,werror=report,format=raw,file=${disk.qemuFile}`],
    ],
    script: `
      mkfs.ext3 -q /dev/sda1
      mount -t ext3 /dev/sda1 /mnt
      ! dd if=/dev/vda of=/mnt/big bs=1M count=40 conv=fsync 2>&1
    `,
  })
  assert.equal(run.status, 0, `${run.output}\n${run.kernelLog.slice(-4000)}`)
  assert.match(run.output, /^dd: .*Input\/output error$/m)
  assert.match(run.kernelLog, /ata\d\.\d\d: status: \{ DRDY ERR/)
  const { failures, sectors } = await assertLedgerAgrees(disk, run.kernelLog, 'sda')
  t.diagnostic(`${failures} writes failed, ${sectors} sectors in the guest's log`)
  assert.ok(sectors > 0, run.kernelLog.slice(-4000))
})
