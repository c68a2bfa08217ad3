// A guest's kernel with a mounted file system on nbd.ko, whose server is replaced under it. Law: the guest's kernel says
// nothing, and its files are right.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { imageAt } from '../support/controlled.js'
import { lastFirst, MIB } from '../support/faults.js'
import { skipWithoutGuests, startGuest } from '../support/guest.js'
import { checkFileSystem, patternBytes, patternDrive, sha256 } from '../support/guest-images.js'
import { startLineage } from '../support/lineage.js'

const UPGRADES = 3
const FILES = 6
const PATTERN_MIB = 8

test('a guest with a mounted ext4 writes on through upgrades of its server, and every file is right', {
  skip: skipWithoutGuests(),
}, async (t) => {
  const scope = lastFirst(t)
  const server = await startLineage(scope, (folder) => [
    `disk=${imageAt(join(folder, 'disk'), 96 * MIB)}`,
    ...['--listen', 'tcp:127.0.0.1:0'],
  ])
  const port = server.candor.uris
    .map((uri) => /^nbd:\/\/[^/]*:(\d+)/.exec(uri)?.[1])
    .find((found) => found !== undefined)
  const pattern = patternBytes(PATTERN_MIB * MIB)
  const guest = await startGuest({
    qemuArguments: patternDrive(scope, pattern),
    script: `
      nbd-client 10.0.2.2 ${port} -N disk -b 4096 -C 2 /dev/nbd0
      mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/nbd0
      mount /dev/nbd0 /mnt
      cat /dev/vda >/tmp/pattern
      set +x
      ( n=0
        while [ ! -e /tmp/stop ] || [ $n -lt ${FILES} ]; do
          n=$((n + 1))
          dd if=/tmp/pattern of=/mnt/file-$((n % ${FILES})) bs=256k conv=fsync 2>/dev/null
          echo "wrote $n"
        done ) & writer=$!
      read -r go
      touch /tmp/stop
      wait $writer
      set -x
      umount /mnt
      mount /dev/nbd0 /mnt
      sha256sum /mnt/file-*
      umount /mnt
      e2fsck -f -n /dev/nbd0
      nbd-client -d /dev/nbd0
    `,
  })
  scope.after(() => guest.powerCut())
  let written = 2
  for (let upgrade = 0; upgrade < UPGRADES; upgrade++) {
    const { input } = await guest.waitForOutput(new RegExp(`^wrote ${written}$`, 'm'))
    const { pauseMs } = await server.upgrade()
    t.diagnostic(`the guest waited ${pauseMs.toFixed(1)} ms`)
    written = input.split('wrote ').length + 2
  }
  await guest.waitForOutput(new RegExp(`^wrote ${written}$`, 'm'))
  await guest.send('go')
  const run = await guest.finished
  assert.equal(run.status, 0, `${run.output}\n${run.kernelLog.slice(-4000)}`)
  assert.doesNotMatch(
    run.kernelLog,
    /I\/O error|blk_update_request|EXT4-fs error|Connection timed out|Receive control failed/,
  )
  const sums = [...run.output.matchAll(/^(\w{64}) {2}\/mnt\/file-\d$/gm)].map(([, sum]) => sum)
  assert.deepEqual(sums, Array(FILES).fill(sha256(pattern)))
  assert.equal((await server.stop()).code, 0)
  checkFileSystem(join(server.folder, 'disk'))
})
