// A disk that grows under a guest: by vhost-user its kernel learns of it at once, without a reboot.
import assert from 'node:assert/strict'
import { statSync, truncateSync } from 'node:fs'
import { test } from 'node:test'
import { command, lastFirst, MIB } from '../support/faults.js'
import { skipWithoutGuests, startGuest } from '../support/guest.js'
import { patternBytes, patternDrive, sha256 } from '../support/guest-images.js'
import { vhostUserDrive } from '../support/guest-vhost-user.js'
import { serveGuests } from '../support/vhost-user-served.js'

const GROWN_MIB = 128

test('a guest sees that its disk is longer when its server comes again, and its monitor has not asked', {
  skip: skipWithoutGuests(),
}, async (t) => {
  const scope = lastFirst(t)
  const { candor, image, socket, again } = await serveGuests(scope)
  const guest = await startGuest({
    qemuArguments: vhostUserDrive({ socket, queues: 2 }),
    script: `
      dd if=/dev/vda bs=4k count=1 of=/dev/null
      echo running
      until [ "$(cat /sys/block/vda/size)" = ${GROWN_MIB * 2048} ]; do sleep 0.1; done
      dd if=/dev/zero of=/dev/vda bs=1M count=1 seek=${GROWN_MIB - 1} conv=fsync
    `,
  })
  scope.after(() => guest.powerCut())
  await guest.waitForOutput(/^running$/m)
  await candor.stop()
  truncateSync(image, GROWN_MIB * MIB)
  const second = await again()
  const run = await guest.finished
  assert.equal(run.status, 0, `${run.output}\n${run.kernelLog.slice(-4000)}`)
  assert.match(run.kernelLog, /\[vda\] new size: 262144 512-byte logical blocks/)
  const { code, stderr } = await second.stop()
  assert.equal(code, 0, stderr)
})

test('a guest sees its disk grow while its file system is mounted, and writes to where it ended before', {
  skip: skipWithoutGuests(),
}, async (t) => {
  const scope = lastFirst(t)
  const { candor, image, socket, stateDirectory } = await serveGuests(scope)
  const pattern = patternBytes(8 * MIB)
  const guest = await startGuest({
    qemuArguments: [...patternDrive(scope, pattern), ...vhostUserDrive({ socket })],
    script: `
      mkfs.ext4 -q /dev/vdb
      mount /dev/vdb /mnt
      echo mounted
      until [ "$(cat /sys/block/vdb/size)" = ${GROWN_MIB * 2048} ]; do sleep 0.1; done
      dd if=/dev/vda of=/mnt/pattern bs=1M conv=fsync
      umount /mnt
      e2fsck -f -n /dev/vdb
      dd if=/dev/vda of=/dev/vdb bs=1M seek=${GROWN_MIB - 8} conv=fsync
      echo 3 >/proc/sys/vm/drop_caches
      dd if=/dev/vdb bs=1M skip=${GROWN_MIB - 8} iflag=direct | sha256sum
    `,
  })
  scope.after(() => guest.powerCut())
  await guest.waitForOutput(/^mounted$/m)
  const resized = await command(['ctl', 'resize', 'disk', `${GROWN_MIB}M`, '--state-dir', stateDirectory])
  assert.equal(resized.code, 0, resized.stderr)
  const run = await guest.finished
  assert.equal(run.status, 0, `${run.output}\n${run.kernelLog.slice(-4000)}`)
  assert.doesNotMatch(run.kernelLog, /I\/O error|EXT4-fs error/)
  assert.match(run.kernelLog, /\[vdb\] new size: 262144 512-byte logical blocks/)
  assert.ok(run.output.includes(`${sha256(pattern)}  -\n`), run.output)
  assert.equal(statSync(image).size, GROWN_MIB * MIB)
  const { code, stderr } = await candor.stop()
  assert.equal(code, 0, stderr)
})
