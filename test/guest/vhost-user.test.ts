// A real kernel's virtio_blk on an export, by QEMU's vhost-user-blk: what the guest wrote is in the image, what was killed
// comes back, and another client of the same export sees the same disk.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { attach, command, lastFirst, MIB } from '../support/faults.js'
import { type GuestRun, type RunningGuest, skipWithoutGuests, startGuest } from '../support/guest.js'
import {
  allocatedMiB,
  checkFileSystem,
  filesInside,
  patternBytes,
  patternDrive,
  sha256,
  sha256OfFile,
} from '../support/guest-images.js'
import { until } from '../support/guest-scenario.js'
import { vhostUserDrive } from '../support/guest-vhost-user.js'
import { serveGuests } from '../support/vhost-user-served.js'

const skip = skipWithoutGuests()
const NUMBERS = Array.from({ length: 1000 }, (_, index) => `${index + 1}\n`).join('')

function assertSucceeded(run: GuestRun): void {
  assert.equal(run.status, 0, `${run.output}\n${run.kernelLog.slice(-4000)}`)
  assert.doesNotMatch(run.kernelLog, /I\/O error|blk_update_request|EXT4-fs error|timed out/)
}

/** What `dd | sha256sum` of a device brings into the output. */
function sumOf(run: GuestRun, device: string): string | undefined {
  return new RegExp(`^(\\w{64}) {2}${device}$`, 'm').exec(run.output)?.[1]
}

test('a guest with two queues makes ext4, writes, discards and zeroes, and an NBD client reads the same beside it', {
  skip,
}, async (t) => {
  const scope = lastFirst(t)
  const { candor, image, socket } = await serveGuests(scope)
  const pattern = patternBytes(8 * MIB)
  const guest = await startGuest({
    qemuArguments: ['-smp', '2', ...patternDrive(scope, pattern), ...vhostUserDrive({ socket, queues: 2 })],
    script: `
      test "$(cat /sys/block/vdb/serial)" = disk
      test "$(cat /sys/block/vdb/queue/write_cache)" = 'write back'
      test -d /sys/block/vdb/mq/1
      mkfs.ext4 -q /dev/vdb 32M
      mount /dev/vdb /mnt
      mkdir /mnt/tree
      dd if=/dev/vda of=/mnt/tree/pattern bs=1M
      seq 1 1000 >/mnt/tree/numbers
      dd if=/dev/vda of=/mnt/gone bs=1M
      sync
      rm /mnt/gone
      sync
      fstrim /mnt
      umount /mnt
      e2fsck -f -n /dev/vdb
      dd if=/dev/vda of=/dev/vdb bs=64k seek=640 conv=fsync
      blkdiscard -o 44M -l 4M /dev/vdb
      blockdev --flushbufs /dev/vdb
      sha256sum /dev/vdb
      echo written
      read go
      dd if=/dev/vdb bs=4k count=1 skip=12288 iflag=direct of=/tmp/nbd
      sha256sum </tmp/nbd
    `,
  })
  scope.after(() => guest.powerCut())
  await guest.waitForOutput(/^written$/m)
  const client = await attach(candor)
  const beside = patternBytes(8 * MIB).subarray(4096, 8192)
  await client.write(48 * MIB, beside)
  await client.disconnect()
  await guest.send('go')
  const run = await guest.finished
  assertSucceeded(run)
  assert.ok(run.output.includes(`${sha256(beside)}  -\n`), run.output)
  const { code, stderr } = await candor.stop()
  assert.equal(code, 0, stderr)
  checkFileSystem(image)
  assert.deepEqual(filesInside(scope, image, '/tree'), { pattern: sha256(pattern), numbers: sha256(NUMBERS) })
  // The two patterns, one of them half discarded, and what ext4 takes; what was deleted and trimmed is given back.
  assert.ok(allocatedMiB(image) < 8 + 4 + 8, `${allocatedMiB(image)} MiB`)
})

for (const [ring, packed] of [
  ['split', false],
  ['packed', true],
] as const) {
  test(`a guest with a ${ring} ring goes on when its server is killed in the middle of its writes and started again`, {
    skip,
  }, async (t) => {
    const scope = lastFirst(t)
    const { candor, image, socket, again } = await serveGuests(scope)
    const pattern = patternBytes(8 * MIB)
    const guest = await startGuest({
      qemuArguments: [
        ...patternDrive(scope, pattern),
        ...vhostUserDrive({ socket, properties: `packed=${packed ? 'on' : 'off'}` }),
      ],
      script: `
        # VIRTIO_F_RING_PACKED, bit 34.
        test "$(cut -c 35 /sys/block/vdb/device/features)" = ${packed ? 1 : 0}
        mkfs.ext4 -q /dev/vdb 48M
        mount /dev/vdb /mnt
        mkdir /mnt/tree
        for copy in 1 2 3; do
          dd if=/dev/vda of=/mnt/tree/$copy bs=256k conv=fsync
          echo "copied $copy"
        done
        umount /mnt
        e2fsck -f -n /dev/vdb
        blockdev --flushbufs /dev/vdb
        sha256sum /dev/vdb
      `,
    })
    scope.after(() => guest.powerCut())
    await guest.waitForOutput(/^copied 1$/m)
    candor.kill('SIGKILL')
    await candor.ended
    const second = await again()
    await guest.waitForOutput(/^copied 2$/m)
    await second.stop()
    const third = await again()
    const run = await guest.finished
    assertSucceeded(run)
    const { code, stderr } = await third.stop()
    assert.equal(code, 0, stderr)
    assert.equal(sumOf(run, '/dev/vdb'), sha256OfFile(image))
    const sum = sha256(pattern)
    assert.deepEqual(filesInside(scope, image, '/tree'), { 1: sum, 2: sum, 3: sum })
  })
}

/** False while QEMU says that the chardev is still the old device's. */
async function added(guest: RunningGuest, device: Record<string, string>): Promise<boolean> {
  try {
    await guest.qmp('device_add', device)
    return true
  } catch (error) {
    if (/Device 'vhost' is in use/.test((error as Error).message)) return false
    throw error
  }
}

test('a guest that is reset finds its disk again, and one whose disk is unplugged and plugged in again as well', {
  skip,
}, async (t) => {
  const scope = lastFirst(t)
  const { candor, image, socket } = await serveGuests(scope)
  const pattern = patternBytes(2 * MIB)
  const guest = await startGuest({
    qemuArguments: ['-action', 'reboot=reset', ...patternDrive(scope, pattern), ...vhostUserDrive({ socket })],
    script: `
      if ! dd if=/dev/vdb bs=1M count=2 | cmp - /dev/vda; then
        dd if=/dev/vda of=/dev/vdb bs=1M conv=fsync
        echo first
        reboot -f
      fi
      echo again
      read go
      until [ ! -e /dev/vdb ]; do sleep 0.1; done
      echo unplugged
      until [ -e /dev/vdb ] && [ "$(blockdev --getsize64 /dev/vdb)" != 0 ]; do sleep 0.1; done
      dd if=/dev/vdb bs=1M count=2 iflag=direct | cmp - /dev/vda
    `,
  })
  scope.after(() => guest.powerCut())
  await guest.waitForOutput(/^again$/m)
  await guest.send('go')
  await guest.qmp('device_del', { id: 'vhost0' })
  await guest.waitForOutput(/^unplugged$/m)
  const named = (devices: unknown) => (devices as { name: string }[]).some(({ name }) => name === 'vhost0')
  await until(
    guest,
    'the device was gone',
    async () => !named(await guest.qmp('qom-list', { path: '/machine/peripheral' })),
  )
  const device = { driver: 'vhost-user-blk-pci', id: 'vhost1', chardev: 'vhost', addr: '0x11' }
  await until(guest, 'QEMU let go of the chardev, which it does later than of the name', () => added(guest, device))
  assertSucceeded(await guest.finished)
  const { code, stderr } = await candor.stop()
  assert.equal(code, 0, stderr)
  assert.ok(sha256OfFile(image).length > 0)
})

test('a guest that turns its write cache off sends no more flushes, and its writes are durable all the same', {
  skip,
}, async (t) => {
  const scope = lastFirst(t)
  const { candor, socket, stateDirectory } = await serveGuests(scope)
  const guest = await startGuest({
    qemuArguments: vhostUserDrive({ socket }),
    script: `
      dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct
      echo 'write through' >/sys/block/vda/cache_type
      test "$(cat /sys/block/vda/queue/write_cache)" = 'write through'
      dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct
      echo 'write back' >/sys/block/vda/cache_type
      dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct
      echo cached
      while dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct conv=fsync; do sleep 0.1; done
      echo 'write through' >/sys/block/vda/cache_type
      ! dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct
    `,
  })
  scope.after(() => guest.powerCut())
  await guest.waitForOutput(/^cached$/m)
  const injected = await command(['ctl', 'inject', 'disk', 'flush:EIO', '--state-dir', stateDirectory])
  assert.equal(injected.code, 0, injected.stderr)
  const run = await guest.finished
  assert.equal(run.status, 0, `${run.output}\n${run.kernelLog.slice(-4000)}`)
  assert.equal((await candor.metrics()).get('candor_export_state{export="disk",state="degraded"}'), 1)
  await candor.stop()
})
