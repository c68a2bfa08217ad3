// A guest whose memory lies in huge pages, which are mapped whole. Law: the host has as many of them afterwards as before.
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { lastFirst, MIB, type Scope } from '../support/faults.js'
import { bootGuest, skipWithoutGuests } from '../support/guest.js'
import { patternBytes, patternDrive, sha256OfFile } from '../support/guest-images.js'
import { vhostUserDrive } from '../support/guest-vhost-user.js'
import { needsRoot } from '../support/requirements.js'
import { serveGuests } from '../support/vhost-user-served.js'

const PAGES = '/proc/sys/vm/nr_hugepages'
const MEMORY_MIB = 256
const PAGE_MIB = 2

function allotHugePages(scope: Scope): void {
  const before = readFileSync(PAGES, 'utf8')
  scope.after(() => writeFileSync(PAGES, before))
  const wanted = Number(before) + MEMORY_MIB / PAGE_MIB
  writeFileSync(PAGES, `${wanted}`)
  const had = Number(readFileSync(PAGES, 'utf8'))
  assert.ok(had >= wanted, `the host has ${had} huge pages of 2 MiB, and ${wanted} are needed`)
}

test('a guest whose memory lies in huge pages writes what it reads again', {
  skip: needsRoot() || skipWithoutGuests(),
}, async (t) => {
  const scope = lastFirst(t)
  allotHugePages(scope)
  const { candor, image, socket } = await serveGuests(scope)
  const drive = { socket, memoryMiB: MEMORY_MIB, hugePages: true }
  const run = await bootGuest({
    memoryMiB: MEMORY_MIB,
    qemuArguments: [...patternDrive(scope, patternBytes(8 * MIB)), ...vhostUserDrive(drive)],
    script: `
      dd if=/dev/vda of=/dev/vdb bs=256k conv=fsync
      echo 3 >/proc/sys/vm/drop_caches
      dd if=/dev/vdb bs=1M count=8 iflag=direct | cmp - /dev/vda
      sha256sum /dev/vdb
    `,
  })
  assert.equal(run.status, 0, `${run.output}\n${run.kernelLog.slice(-4000)}`)
  const { code, stderr } = await candor.stop()
  assert.equal(code, 0, stderr)
  assert.match(run.output, new RegExp(`^${sha256OfFile(image)} `, 'm'))
})
