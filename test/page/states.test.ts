// The status page in states that a full disk does not show: the operator's reserve, and an image that was let go of. Law:
// what an operator made so is never told as a failure of storage.
import assert from 'node:assert/strict'
import { statfsSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { NBD_ENOSPC } from 'nbd-protocol'
import type { BackingView } from '../../server/observe/space-view.js'
import { CHROMIUM, openPage, startBrowser } from '../support/browser.js'
import { temporaryFolder } from '../support/candor.js'
import { attach, command, lastFirst, MIB, refused, serve, stamped } from '../support/faults.js'
import { mountLoopDisk, sparseFile } from '../support/loop-disk.js'
import { needsRoot } from '../support/requirements.js'

test('the page tells what the reserve refuses, how much is left above it, and an image that an operator let go of', {
  skip: needsRoot('mkfs.ext4', 'losetup', 'setpriv', CHROMIUM),
  timeout: 120_000,
}, async (t) => {
  const scope = lastFirst(t)
  const disk = mountLoopDisk(scope, { type: 'ext4', sizeMiB: 64 })
  const folder = temporaryFolder()
  scope.after(() => folder.remove())
  const state = join(folder.path, 'state')
  const [disk1, disk2] = ['disk1', 'disk2'].map((name) => `${name}=${sparseFile(join(disk.folder, name), 64 * MIB)}`)
  const reserve = disk.freeBytes() - 8 * MIB
  const candor = await serve(scope, [disk1 ?? '', disk2 ?? '', '--state-dir', state, '--reserve', `disk1=${reserve}`])
  const [first, second] = await Promise.all(candor.uris.map((uri) => attach(uri)))
  assert.ok(first && second)
  await first.write(0, stamped(0, MIB))
  await refused(first.write(16 * MIB, stamped(16 * MIB, 16 * MIB)), NBD_ENOSPC)
  const browser = await startBrowser(scope)
  const { page } = await openPage(browser, `${candor.httpUrl}/#disk=disk2`, { viewport: { width: 360, height: 740 } })

  await page
    .locator('h1')
    .filter({ hasText: /^disk1: free space is down to the reserve$/ })
    .waitFor()
  const card = await page.locator('.problem.broken').innerText()
  assert.match(card, /1 write that needed new space was refused with ENOSPC, because the export leaves [\d.]+ MiB/)
  assert.match(card, /start candor with a smaller --reserve/)
  const { backings } = (await (await fetch(`${candor.httpUrl}/api/backings`)).json()) as { backings: BackingView[] }
  const { blocks, bsize } = statfsSync(disk.folder)
  const [only] = backings
  assert.deepEqual([backings.length, only?.mount, only?.size], [1, disk.folder, blocks * bsize])
  assert.deepEqual([only?.reserve, only?.exports], [reserve, 2])
  assert.equal(only?.overcommit, (only?.mayTake ?? 0) - (only?.free ?? 0))
  const space = page.locator('#space')
  const words = (await space.innerText()).replaceAll(/\s+/g, ' ')
  assert.match(words, /[\d.]+ MiB free of [\d.]+ MiB The 2 images on it may still take 127 MiB; [\d.]+ MiB are free\./)
  assert.match(words, /A reserve of [\d.]+ MiB is kept from the guests: [\d.]+ MiB above it/)
  const bar = await space.locator('.space-bar').boundingBox()
  const mark = await space.locator('.reserve').first().boundingBox()
  assert.ok(bar && mark)
  assert.ok(Math.abs(mark.width / bar.width - reserve / (blocks * bsize)) < 0.02, `${mark.width} of ${bar.width}`)

  await page.locator('#map-body').waitFor()
  assert.equal((await command(['ctl', 'release', 'disk2', '--state-dir', state])).code, 0)
  const waiting = second.write(0, stamped(0, MIB))
  await page.locator('#disk-state').filter({ hasText: 'released: requests wait' }).waitFor()
  const waits = page.locator('.problem.waiting').filter({ hasText: 'an operator has let go of the image' })
  assert.match(await waits.innerText(), /Since \d\d:\d\d:\d\d · [\s\S]*candor ctl resume disk2/)
  await page
    .locator('#map-window')
    .filter({ hasText: /not of now: export disk2 is released/ })
    .waitFor()
  await page.locator('#exports button').filter({ hasText: 'disk1' }).click()
  await page.locator('#disk-state').filter({ hasText: 'requests fail' }).waitFor()
  await page.locator('#exports button').filter({ hasText: 'disk2' }).click()
  await page
    .locator('#map-window')
    .filter({ hasText: /^No map now: export disk2 is released/ })
    .waitFor()
  assert.equal(await page.locator('#map-body').isHidden(), true, 'no old picture is shown as a new one')
  assert.equal(await page.evaluate('document.documentElement.scrollWidth <= innerWidth'), true)

  assert.equal((await command(['ctl', 'resume', 'disk2', '--state-dir', state])).code, 0)
  await waiting
  await page
    .locator('#map-window')
    .filter({ hasText: /^The whole disk, / })
    .waitFor()
  await waits.waitFor({ state: 'detached' })
})
