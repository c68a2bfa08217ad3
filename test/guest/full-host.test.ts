// A 1 GB sparse image on a host of 200 MB, a guest that fills it: no write that failed may look like a success to it.
import assert from 'node:assert/strict'
import { truncateSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { lastFirst, MIB } from '../support/faults.js'
import { bootGuest, type GuestRun, skipWithoutGuests } from '../support/guest.js'
import { type Attachment, NBD_KO, VHOST_USER } from '../support/guest-attachments.js'
import { patternBytes, patternDrive, scratchFolder, sha256 } from '../support/guest-images.js'
import {
  assertLedgerAgrees,
  attachScript,
  leaveFree,
  partitionedImage,
  SCENARIO_TOOLS,
  serveDisk,
} from '../support/guest-scenario.js'
import { mountFile, mountLoopDisk, run, sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'

const skip = needsRoot(...SCENARIO_TOOLS) || skipWithoutGuests()
// What the guests write is more than the host has and less than their own disk, so that only the host runs out of space.
const IMAGE_MIB = 1024
const HOST_MIB = 200
const ENLARGED_MIB = 1400
/** An emulated processor takes half a minute for it, where it is not alone several times that. */
const FILL_TIMEOUT_MS = 600_000
const KEPT = patternBytes(8 * MIB)
const NUMBERS = Array.from({ length: 50_000 }, (_, index) => `${index + 1}\n`).join('')

function words(guest: GuestRun): string {
  return `${guest.output}\n${guest.kernelLog.slice(-6000)}`
}

/** The number that a script's `echo "WHAT: $?"` printed. */
function said(guest: GuestRun, what: string): number {
  const found = new RegExp(`^${what}: (\\d+)$`, 'm').exec(guest.output)?.[1]
  assert.ok(found !== undefined, `the guest did not say '${what}'\n${words(guest)}`)
  return Number(found)
}

/** What fills the host: its output ends with the status, and is no success. */
interface Filler {
  readonly script: string
  readonly says: RegExp
}

const LARGE_FILE: Filler = {
  script: 'dd if=/dev/zero of=/mnt/zero bs=1M count=500 conv=fsync 2>&1 || status=$?',
  says: /^dd: .*Input\/output error$/m,
}

/** 64 MiB in 64 folders, copied until the host has long been full; each file is synced by itself, as a careful copy does. */
const HIERARCHY: Filler = {
  script: `
      for one in 1 2 3 4 5 6 7 8; do for two in 1 2 3 4 5 6 7 8; do
        mkdir -p /mnt/tree/$one/$two
        dd if=/dev/vda of=/mnt/tree/$one/$two/file bs=1M count=1
      done; done
      for copy in 1 2 3 4 5; do
        cp -r /mnt/tree /mnt/copy$copy || status=$?
        find /mnt/copy$copy -type f | while read -r file; do dd if=/dev/null of="$file" conv=notrunc,fsync || echo "lost: $file"; done
      done >/copied 2>&1
      if grep -q '^lost: ' /copied; then status=1; fi
      grep -m 3 'Input/output error' /copied
  `,
  says: /Input\/output error/,
}

test(
  'a guest that fills a full host is told, the ledger knows what it was told, and what was synced survives',
  {
    skip,
  },
  (t) => fillAndRecover(t, LARGE_FILE, NBD_KO),
)

test(
  'a guest with a vhost-user disk that fills a full host is told just as well, and what was synced survives',
  {
    skip,
  },
  (t) => fillAndRecover(t, LARGE_FILE, VHOST_USER),
)

test(
  'a guest that copies a directory hierarchy onto a full host is told just as well, and what was synced survives',
  {
    skip,
  },
  (t) => fillAndRecover(t, HIERARCHY, NBD_KO),
)

async function fillAndRecover(t: TestContext, filler: Filler, attachment: Attachment): Promise<void> {
  const scope = lastFirst(t)
  const home = scratchFolder(scope)
  const hostDisk = sparseFile(join(home, 'host'), HOST_MIB * MIB)
  run('mkfs.ext4', '-q', '-F', '-m', '0', '-E', 'lazy_itable_init=0,lazy_journal_init=0', hostDisk)
  await t.test('the host fills up', (inner) => fill(inner, hostDisk, join(home, 'state'), filler, attachment))
  truncateSync(hostDisk, ENLARGED_MIB * MIB)
  // It wants to see a check that is later than the last mount; and the host's own file system must be sound as well.
  run('e2fsck', '-f', '-y', hostDisk)
  run('resize2fs', hostDisk)
  await t.test('the host was enlarged, the guest boots again', (inner) =>
    recover(inner, hostDisk, join(home, 'state'), attachment),
  )
}

async function fill(
  t: TestContext,
  hostDisk: string,
  state: string,
  filler: Filler,
  attachment: Attachment,
): Promise<void> {
  const { partition, device } = attachment
  const scope = lastFirst(t)
  const { folder, freeBytes } = mountFile(scope, 'ext4', hostDisk)
  const disk = await serveDisk(scope, partitionedImage(folder, IMAGE_MIB), state)
  const guest = await bootGuest({
    qemuArguments: [...patternDrive(scope, KEPT), ...attachment.qemuArguments(disk, undefined)],
    timeoutMs: FILL_TIMEOUT_MS,
    script: `
      ${attachment.attach(disk)}
      mkfs.ext3 -q ${partition}
      mount -t ext3 ${partition} /mnt
      mkdir /mnt/kept
      dd if=/dev/vda of=/mnt/kept/pattern bs=1M
      seq 1 50000 >/mnt/kept/numbers
      sync
      status=0
      ${filler.script}
      echo "filled: $status"
      sync
    `,
  })
  assert.equal(guest.status, 0, words(guest))
  assert.notEqual(said(guest, 'filled'), 0)
  assert.match(guest.output, filler.says)
  const { sectors, failures } = await assertLedgerAgrees(disk, guest.kernelLog, device)
  t.diagnostic(
    `${failures} writes failed, the guest's kernel gave the sectors of ${sectors}; ${freeBytes()} bytes free`,
  )
  assert.ok(sectors > 0, words(guest))
  assert.match(guest.kernelLog, attachment.errorLogged)
  // nbd.ko logs each reply with an error, with its own number for it: not one was lost on the way.
  const told = attachment === NBD_KO ? guest.kernelLog.match(new RegExp(NBD_KO.errorLogged, 'g'))?.length : failures
  assert.equal(told, failures)
}

async function recover(t: TestContext, hostDisk: string, state: string, attachment: Attachment): Promise<void> {
  const { partition, device } = attachment
  const scope = lastFirst(t)
  const { folder } = mountFile(scope, 'ext4', hostDisk)
  const disk = await serveDisk(scope, join(folder, 'disk.img'), state)
  const guest = await bootGuest({
    qemuArguments: [...patternDrive(scope, KEPT), ...attachment.qemuArguments(disk, undefined)],
    script: `
      ${attachment.attach(disk)}
      mount -t ext3 ${partition} /mnt
      umount /mnt
      found=0
      e2fsck -f -y ${partition} || found=$?
      echo "e2fsck: $found"
      e2fsck -f -n ${partition}
      mount -t ext3 ${partition} /mnt
      cd /mnt/kept
      sha256sum *
      cd /
      dd if=/dev/zero of=/mnt/more bs=1M count=16 conv=fsync
      umount /mnt
      ${attachment.detach}
    `,
  })
  assert.equal(guest.status, 0, words(guest))
  assert.match(guest.kernelLog, new RegExp(`EXT4-fs \\(${device}p?1\\): recovery complete`))
  assert.doesNotMatch(guest.kernelLog, /I\/O error|Other side returned error/)
  // 1: some blocks could not be written, e2fsck has put right what spoke of them. Anything above would be a loss.
  assert.ok(said(guest, 'e2fsck') <= 1, words(guest))
  assert.ok(guest.output.includes(`${sha256(KEPT)}  pattern\n`), words(guest))
  assert.ok(guest.output.includes(`${sha256(NUMBERS)}  numbers\n`), words(guest))
  await disk.stop()
}

test('a dd that asks for no sync ends well for Linux 6.1 on a full host all the same, and so does sync', {
  skip,
}, async (t) => {
  const scope = lastFirst(t)
  const host = mountLoopDisk(scope, { type: 'ext4', sizeMiB: HOST_MIB })
  const image = partitionedImage(host.folder, IMAGE_MIB)
  leaveFree(host, 64)
  const disk = await serveDisk(scope, image, join(scratchFolder(scope), 'state'))
  const guest = await bootGuest({
    script: `
      ${attachScript(disk)}
      mkfs.ext3 -q /dev/nbd0p1
      mount -t ext3 /dev/nbd0p1 /mnt
      status=0
      dd if=/dev/zero of=/mnt/zero bs=1M count=64 || status=$?
      echo "dd: $status"
      status=0
      sync || status=$?
      echo "sync: $status"
    `,
  })
  assert.equal(guest.status, 0, words(guest))
  assert.equal(said(guest, 'dd'), 0)
  t.diagnostic(`sync ended with ${said(guest, 'sync')}`)
  // That is the guest's own habit: its kernel was told of every write that failed.
  const { sectors } = await assertLedgerAgrees(disk, guest.kernelLog, 'nbd0')
  assert.ok(sectors > 0, words(guest))
})
