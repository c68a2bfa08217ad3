// QEMU's own NBD client against the server, with a guest that sees ordinary disks: virtio, and the IDE of old.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bootGuest, skipWithoutGuests } from '../support/guest.js'
import {
  checkFileSystem,
  filesInside,
  patternBytes,
  patternDrive,
  sha256,
  sha256OfFile,
} from '../support/guest-images.js'
import { serveImage } from '../support/guest-server.js'

const skip = skipWithoutGuests()

test("a guest's virtio and IDE disks, attached by QEMU over a Unix socket and over TCP, keep what was written", {
  skip,
}, async (scope) => {
  const virtio = await serveImage(scope, { sizeMiB: 64, over: 'unix' })
  const ide = await serveImage(scope, { sizeMiB: 64, over: 'tcp' })
  const pattern = patternBytes(8 * 2 ** 20)
  const drives = [
    ...patternDrive(scope, pattern),
    ...['-drive', `if=virtio,format=raw,discard=unmap,file=${virtio.qemuFile}`],
    // Without a write-back cache QEMU sends every write with FUA.
    ...['-drive', `if=ide,format=raw,cache=writethrough,file=${ide.qemuFile}`],
  ]
  const run = await bootGuest({
    qemuArguments: drives,
    script: `
        mkfs.ext4 -q /dev/vdb
        mkfs.ext3 -q /dev/sda
        for disk in vdb sda; do
          mount /dev/$disk /mnt
          mkdir /mnt/tree
          dd if=/dev/vda of=/mnt/tree/pattern bs=1M
          seq 1 1000 >/mnt/tree/numbers
          umount /mnt
          e2fsck -f -n /dev/$disk
          blockdev --flushbufs /dev/$disk
          sha256sum /dev/$disk
        done
      `,
  })
  assert.equal(run.status, 0, `${run.output}\n${run.kernelLog.slice(-4000)}`)
  assert.doesNotMatch(run.kernelLog, /I\/O error|exception Emask|EXT4-fs error/)
  await virtio.stop()
  await ide.stop()
  const numbers = Array.from({ length: 1000 }, (_, index) => `${index + 1}\n`).join('')
  for (const [image, device] of [[virtio, 'vdb'] as const, [ide, 'sda'] as const]) {
    assert.match(run.output, new RegExp(`^${sha256OfFile(image.path)}  /dev/${device}$`, 'm'))
    checkFileSystem(image.path)
    const expected = { pattern: sha256(pattern), numbers: sha256(numbers) }
    assert.deepEqual(filesInside(scope, image.path, '/tree'), expected)
  }
})
