// A guest whose storage takes every write and cannot keep them: its fsync has to fail, and go on failing, and what was lost
// must never be read as good. The other attachments belong to `./test/run --all`.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { lastFirst, MIB } from '../support/faults.js'
import { bootGuest, skipWithoutGuests } from '../support/guest.js'
import { ATTACHMENTS, type Attachment, QEMU_IDE, VHOST_USER } from '../support/guest-attachments.js'
import { patternBytes, patternDrive, scratchFolder, sha256 } from '../support/guest-images.js'
import { EXPORT_NAME, SCENARIO_TOOLS, serveDisk } from '../support/guest-scenario.js'
import { sparseFile } from '../support/loop-disk.js'
import { needsRoot, UNDER_ALL } from '../support/requirements.js'
import { evict, mountThinStack, suspectBytes, THIN_STACK_NEEDS } from '../support/thin-stack.js'

const skip = needsRoot(...THIN_STACK_NEEDS, ...SCENARIO_TOOLS) || skipWithoutGuests()
/** More than the 64 MiB that storage can keep. */
const WRITTEN_MIB = 96
/** What is synced before. */
const SAFE_MIB = 8
const PATTERN = patternBytes(WRITTEN_MIB * MIB)

/** Says of each MiB what it reads as, or that it cannot be read. */
function readScript(disk: string): string {
  return `
    set +x
    for at in $(seq 0 ${WRITTEN_MIB - 1}); do
      if dd if=${disk} of=/tmp/part bs=1M count=1 skip=$at iflag=direct 2>/dev/null
      then echo "$at $(sha256sum </tmp/part)"
      else echo "$at lost"
      fi
    done
    set -x
  `
}

async function play(t: TestContext, attachment: Attachment): Promise<void> {
  const scope = lastFirst(t)
  const stack = mountThinStack(scope)
  const image = sparseFile(join(stack.folder, 'disk.img'), 256 * MIB)
  const disk = await serveDisk(scope, image, join(scratchFolder(scope), 'state'))
  const device = `/dev/${attachment.device}`
  // By default QEMU pauses a guest whose disk says ENOSPC, to a FLUSH as well.
  const [werror] = attachment.werror
  const run = await bootGuest({
    qemuArguments: [...patternDrive(scope, PATTERN), ...attachment.qemuArguments(disk, werror)],
    script: `
      ${attachment.attach(disk).split('\n')[0]}
      dd if=/dev/vda of=${device} bs=1M count=${SAFE_MIB} conv=fsync
      ! dd if=/dev/vda of=${device} bs=1M skip=${SAFE_MIB} seek=${SAFE_MIB} conv=fsync
      ! dd if=/dev/vda of=${device} bs=1M count=1 seek=200 conv=fsync
      echo 3 >/proc/sys/vm/drop_caches
      ${readScript(device)}
    `,
  })
  assert.equal(run.status, 0, `${run.output}\n${run.kernelLog.slice(-4000)}`)
  const found = new Map([...run.output.matchAll(/^(\d+) (\w+)/gm)].map(([, at, what]) => [Number(at), what]))
  assert.equal(found.size, WRITTEN_MIB, run.output)
  let lost = 0
  for (const [at, what] of found) {
    if (what === 'lost') lost += 1
    else assert.equal(what, sha256(PATTERN.subarray(at * MIB, (at + 1) * MIB)), `MiB ${at} was read as what it is not`)
    assert.ok(at >= SAFE_MIB || what !== 'lost', `MiB ${at} was synced, and is lost`)
  }
  assert.ok(lost >= WRITTEN_MIB - 64, `${lost} MiB are refused, of 64 that storage can keep`)
  const suspect = (await suspectBytes(disk.candor, EXPORT_NAME)) ?? 0
  t.diagnostic(`${suspect / MIB} MiB are suspect`)
  assert.ok(suspect >= (WRITTEN_MIB - 64) * MIB, 'what storage could not keep is not all suspect')
  t.diagnostic(`${lost} of ${WRITTEN_MIB} MiB were lost, and the guest was told so`)
  evict(image)
  // Its final sync fails, and says so.
  assert.equal((await disk.candor.stop()).code, 2)
}

// A guest's IDE driver resets the disk for seconds at each read that fails, and there are dozens. The others take long as well,
// so that all but one are run under --all alone.
for (const attachment of ATTACHMENTS.filter((each) => each === VHOST_USER || (UNDER_ALL && each !== QEMU_IDE))) {
  test(
    `a guest whose storage fails its syncs is told, and reads no lost byte as good: ${attachment.name}`,
    {
      skip,
    },
    (t) => play(t, attachment),
  )
}
