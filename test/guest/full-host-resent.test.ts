// A guest's driver that gives up waiting, and sends a write again on its other connection: the first copy of it must
// not come to lie over anything that was written since.
import assert from 'node:assert/strict'
import { closeSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { lastFirst, MIB, type Scope } from '../support/faults.js'
import { type GuestRun, skipWithoutGuests, startGuest } from '../support/guest.js'
import { patternBytes, patternDrive, scratchFolder, sha256 } from '../support/guest-images.js'
import {
  attachScript,
  leaveFree,
  SCENARIO_TOOLS,
  type ServedDisk,
  serveDisk,
  until,
} from '../support/guest-scenario.js'
import { type LoopDisk, mountLoopDisk, sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'

const skip = needsRoot(...SCENARIO_TOOLS) || skipWithoutGuests()
const HOST_MIB = 320
const ENLARGED_MIB = 640
/** Where, and how much, both the older and the newer data are written. */
const PLACE = 4 * MIB
const OLDER_AND_NEWER = patternBytes(8 * MIB)
const NEWER = OLDER_AND_NEWER.subarray(PLACE)

interface Held {
  readonly host: LoopDisk
  readonly image: string
  readonly disk: ServedDisk
}

async function serveSmall(scope: Scope, ...args: readonly string[]): Promise<Held> {
  const host = mountLoopDisk(scope, { type: 'xfs', sizeMiB: HOST_MIB })
  const image = sparseFile(join(host.folder, 'disk.img'), 64 * MIB)
  const disk = await serveDisk(scope, image, join(scratchFolder(scope), 'state'), ...args)
  return { host, image, disk }
}

/** Writes the older data, which takes longer than the driver waits, and the newer ones as soon as that was answered. */
function script(disk: ServedDisk): string {
  return `
    ${attachScript(disk, '-C', '2', '-t', '6')}
    cat /dev/vda >/tmp/content
    dd if=/tmp/content of=/dev/nbd0 bs=4M count=1 seek=1 oflag=direct &
    writer=$!
    set +x; until dmesg | grep -q 'timed out, retrying'; do sleep 0.2; done; set -x
    echo resent
    wait $writer
    dd if=/tmp/content of=/dev/nbd0 bs=4M skip=1 count=1 seek=1 oflag=direct conv=fsync
    nbd-client -d /dev/nbd0
  `
}

function assertNewer(guest: GuestRun, image: string): void {
  assert.equal(guest.status, 0, `${guest.output}\n${guest.kernelLog.slice(-4000)}`)
  assert.match(guest.kernelLog, /block nbd0: Connection timed out, retrying/)
  const there = Buffer.alloc(NEWER.length)
  const file = openSync(image, 'r')
  readSync(file, there, 0, there.length, PLACE)
  closeSync(file)
  assert.equal(sha256(there), sha256(NEWER))
}

async function droppedRequests(disk: ServedDisk): Promise<number> {
  const entries = await disk.ledger()
  return entries.filter(({ errno }) => errno === 'dropped').reduce((sum, { count }) => sum + count, 0)
}

test('a held write that the guest sent again on its other connection does not come back over newer data', {
  skip,
}, async (t: TestContext) => {
  const scope = lastFirst(t)
  const { host, image, disk } = await serveSmall(scope, '--on-enospc', 'hold=5m')
  leaveFree(host, 2)
  const guest = await startGuest({ qemuArguments: patternDrive(scope, OLDER_AND_NEWER), script: script(disk) })
  scope.after(() => guest.powerCut())
  await until(guest, 'a write was held', async () => (await disk.held()) > 0)
  await guest.waitForOutput(/^resent$/m)
  host.grow(ENLARGED_MIB)
  const run = await guest.finished
  await disk.idle()
  await disk.stop()
  assertNewer(run, image)
  // The first copies were never answered: that, too, has to stand somewhere.
  assert.ok((await droppedRequests(disk)) > 0, 'the ledger knows of no dropped request')
})

test('a slow write that the guest sent again on its other connection does not come back over newer data', {
  skip,
}, async (t: TestContext) => {
  const scope = lastFirst(t)
  // The first copy is given to storage after the driver has lost patience, and before it loses it with the second one.
  const { image, disk } = await serveSmall(scope, '--inject', 'write:@4M-8M,delay=9s,count=1')
  const guest = await startGuest({ qemuArguments: patternDrive(scope, OLDER_AND_NEWER), script: script(disk) })
  scope.after(() => guest.powerCut())
  const run = await guest.finished
  await disk.idle()
  await disk.stop()
  assertNewer(run, image)
})
