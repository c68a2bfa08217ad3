// A real kernel's NBD client against the server: what the guest wrote must be in the image, byte for byte.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bootGuest, type GuestRun, skipWithoutGuests, startGuest } from '../support/guest.js'
import {
  allocatedMiB,
  checkFileSystem,
  filesInside,
  patternBytes,
  patternDrive,
  sha256,
  sha256OfFile,
} from '../support/guest-images.js'
import { serveImage } from '../support/guest-server.js'

const skip = skipWithoutGuests()
const MIB = 2 ** 20

/** A guest's kernel tells of failed requests even where the program that caused them does not look. */
function assertSucceeded(run: GuestRun): void {
  const end = `${run.output}\n${run.kernelLog.slice(-4000)}`
  assert.equal(run.status, 0, end)
  const trouble = /I\/O error|blk_update_request|EXT4-fs error|Connection timed out/.exec(run.kernelLog)?.[0]
  assert.equal(trouble, undefined, end)
}

/** What the script's `sha256sum /dev/nbd0` found. */
function sumOfDevice(run: GuestRun): string | undefined {
  return /^(\w{64}) {2}\/dev\/nbd0$/m.exec(run.output)?.[1]
}

function lines(count: number): string {
  return Array.from({ length: count }, (_, index) => `${index + 1}\n`).join('')
}

test('a guest with nbd-client attaches over TCP, makes ext4, writes files, unmounts, e2fsck is clean, detaches, and ' +
  "the image's content is right on the host", { skip }, async (scope) => {
  const image = await serveImage(scope, { sizeMiB: 96, over: 'tcp' })
  const pattern = patternBytes(8 * MIB)
  const run = await bootGuest({
    qemuArguments: patternDrive(scope, pattern),
    script: `
        nbd-client ${image.nbdClientArguments} -b 4096 /dev/nbd0
        mkfs.ext4 -q /dev/nbd0 64M
        mount /dev/nbd0 /mnt
        mkdir -p /mnt/tree/some/where
        cd /mnt/tree
        dd if=/dev/vda of=pattern bs=1M
        seq 1 300000 >some/numbers
        echo end | dd of=some/where/sparse bs=1M seek=40
        set +x; for i in $(seq 1 200); do echo "I am $i" >some/where/small-$i; done; set -x
        sync
        rm some/where/small-1
        mv some/where/small-2 moved
        cd /
        umount /mnt
        e2fsck -f -n /dev/nbd0
        dd if=/dev/vda of=/dev/nbd0 bs=64k seek=1280 conv=fsync
        blockdev --flushbufs /dev/nbd0
        sha256sum /dev/nbd0
        nbd-client -d /dev/nbd0
      `,
  })
  assertSucceeded(run)
  await image.stop()
  assert.equal(sumOfDevice(run), sha256OfFile(image.path))
  checkFileSystem(image.path)
  const small = Array.from({ length: 198 }, (_, index) => [
    `some/where/small-${index + 3}`,
    sha256(`I am ${index + 3}\n`),
  ])
  assert.deepEqual(filesInside(scope, image.path, '/tree'), {
    pattern: sha256(pattern),
    'some/numbers': sha256(lines(300_000)),
    'some/where/sparse': sha256(Buffer.concat([Buffer.alloc(40 * MIB), Buffer.from('end\n')])),
    moved: sha256('I am 2\n'),
    ...Object.fromEntries(small),
  })
})

test("a guest's fstrim and blkdiscard free space on the host", { skip }, async (scope) => {
  const image = await serveImage(scope, { sizeMiB: 64, over: 'tcp' })
  // A lazy mkfs would leave it to the kernel to write tables at some later time, which the sums below must not see.
  const guest = await startGuest({
    qemuArguments: patternDrive(scope, patternBytes(24 * MIB)),
    script: `
      nbd-client ${image.nbdClientArguments} -b 4096 /dev/nbd0
      mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/nbd0
      mount /dev/nbd0 /mnt
      dd if=/dev/vda of=/mnt/pattern bs=1M
      sync
      echo written; read -r go
      rm /mnt/pattern
      sync
      fstrim -v /mnt
      echo trimmed; read -r go
      umount /mnt
      blkdiscard /dev/nbd0
      blockdev --flushbufs /dev/nbd0
      sha256sum /dev/nbd0
      nbd-client -d /dev/nbd0
    `,
  })
  scope.after(() => guest.powerCut())
  await guest.waitForOutput(/^written$/m)
  const written = allocatedMiB(image.path)
  assert.ok(written >= 24, `only ${written} MiB are allocated after 24 MiB were written`)
  await guest.send('go')
  await guest.waitForOutput(/^trimmed$/m)
  const trimmed = allocatedMiB(image.path)
  assert.ok(trimmed <= written - 23, `${trimmed} MiB are allocated after the trim, ${written} were before it`)
  await guest.send('go')
  const run = await guest.finished
  assertSucceeded(run)
  await image.stop()
  assert.equal(sumOfDevice(run), sha256(Buffer.alloc(64 * MIB)))
  const discarded = allocatedMiB(image.path)
  assert.ok(discarded < 1, `${discarded} MiB are allocated after everything was discarded`)
})

// Its mkfs and its file system write zeroes as data: this kernel's driver knows no WRITE_ZEROES.
const ZEROES = `
  mkfs.ext4 -q -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 /dev/nbd0
  mount /dev/nbd0 /mnt
  mkdir /mnt/tree
  dd if=/dev/zero of=/mnt/tree/zeroes bs=1M count=24 conv=fsync
  dd if=/dev/vda of=/mnt/tree/pattern bs=1M
  dd if=/dev/zero of=/mnt/tree/pattern bs=1M count=2 seek=3 conv=notrunc,fsync
  sync
  umount /mnt
  e2fsck -f -n /dev/nbd0
  blockdev --flushbufs /dev/nbd0
  sha256sum /dev/nbd0
  nbd-client -d /dev/nbd0
`

test("with --detect-zeroes a guest's zeroes take no space, and its file system is right", { skip }, async (scope) => {
  const pattern = patternBytes(8 * MIB)
  const image = await serveImage(scope, { sizeMiB: 96, over: 'tcp', flags: ['--detect-zeroes', 'on'] })
  const run = await bootGuest({
    qemuArguments: patternDrive(scope, pattern),
    script: `nbd-client ${image.nbdClientArguments} -b 4096 /dev/nbd0\n${ZEROES}`,
  })
  assertSucceeded(run)
  await image.stop()
  assert.equal(sumOfDevice(run), sha256OfFile(image.path))
  checkFileSystem(image.path)
  const files = { zeroes: sha256(Buffer.alloc(24 * MIB)), pattern: sha256(zeroed(pattern, 3 * MIB, 5 * MIB)) }
  assert.deepEqual(filesInside(scope, image.path, '/tree'), files)
  const allocated = allocatedMiB(image.path)
  assert.ok(allocated < 8, `${allocated} MiB are allocated, of 36 that were written`)
})

function zeroed(bytes: Uint8Array, from: number, to: number): Buffer {
  return Buffer.from(bytes).fill(0, from, to)
}

test('parallel writes over two connections of one device all arrive', { skip }, async (scope) => {
  const image = await serveImage(scope, { sizeMiB: 32, over: 'tcp' })
  const pattern = patternBytes(8 * MIB)
  const run = await bootGuest({
    // With two processors both of the device's queues, each with a connection of its own, have work at the same time.
    qemuArguments: ['-smp', '2', ...patternDrive(scope, pattern)],
    script: `
      nbd-client ${image.nbdClientArguments} -b 4096 -C 2 /dev/nbd0
      echo "connections: $(netstat -tn | grep -c '10.0.2.2:.*ESTABLISHED')"
      cat /dev/vda >/tmp/pattern
      writers=
      for i in 0 1 2 3; do
        dd if=/tmp/pattern of=/dev/nbd0 bs=128k seek=$((i * 64)) conv=fsync oflag=direct & writers="$writers $!"
      done
      for writer in $writers; do wait "$writer"; done
      blockdev --flushbufs /dev/nbd0
      sha256sum /dev/nbd0
      nbd-client -d /dev/nbd0
    `,
  })
  assertSucceeded(run)
  await image.stop()
  assert.match(run.output, /^connections: 2\n/m)
  const expected = sha256(Buffer.concat([pattern, pattern, pattern, pattern]))
  assert.equal(sumOfDevice(run), expected)
  assert.equal(sha256OfFile(image.path), expected)
})
