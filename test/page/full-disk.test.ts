// The status page in a real browser, in the middle of the full-disk scenario: it says in words what is wrong, its map is
// the ledger's, and it can be used by keyboard, on a phone, and by those who do not see colours.
// CANDOR_SCREENSHOTS=1 writes docs/images anew, after half a minute of work so that the charts have something to show.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import type { BrowserContextOptions, Page } from 'playwright-core'
import type { LedgerEntry } from '../../server/state/ledger.js'
import { CHROMIUM, openPage, startBrowser } from '../support/browser.js'
import { command, lastFirst } from '../support/faults.js'
import { fullDisk } from '../support/page-scene.js'
import { needsRoot } from '../support/requirements.js'

const SECTOR = 512
const WANTS_PICTURES = process.env['CANDOR_SCREENSHOTS'] === '1'
const PICTURES_WORK = 110

const LOOKS: Readonly<Record<string, BrowserContextOptions>> = {
  light: { colorScheme: 'light', viewport: { width: 1100, height: 1860 } },
  dark: { colorScheme: 'dark', viewport: { width: 1100, height: 1860 } },
  phone: { colorScheme: 'light', viewport: { width: 360, height: 740 }, deviceScaleFactor: 2 },
}

/** The page with its map and its charts. */
async function whole(page: Page): Promise<void> {
  await page.locator('.problem.broken').waitFor()
  await page.locator('#legend li').first().waitFor()
  await page.locator('#charts canvas').first().waitFor()
}

/** What the readout says of the cell in which a byte lies, as a pointer finds it. */
async function hover(page: Page, offset: number, size: number): Promise<string> {
  await page.locator('#map').scrollIntoViewIfNeeded()
  const box = await page.locator('#map').boundingBox()
  assert.ok(box !== null)
  const columns = 64
  const cell = Math.floor(offset / (size / (columns * 16)))
  const step = box.width / columns
  const x = box.x + ((cell % columns) + 0.5) * step
  await page.mouse.move(x, box.y + (Math.floor(cell / columns) + 0.5) * step)
  return (await page.locator('#readout').innerText()).replaceAll('\n', ' | ')
}

async function axe(page: Page): Promise<string[]> {
  // Chromium's own protocol runs it, which no Content-Security-Policy of the page forbids.
  await page.evaluate(readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8'))
  const found = (await page.evaluate('axe.run(document, { resultTypes: ["violations"] })')) as {
    violations: { id: string; impact: string; nodes: { html: string }[] }[]
  }
  return found.violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map(({ html }) => html).join(' ')}`)
}

test('in the middle of a full disk the page says what is broken, where, since when, and what to do', {
  skip: needsRoot('mkfs.ext4', 'losetup', 'setpriv', CHROMIUM),
  timeout: 180_000,
}, async (t) => {
  const scope = lastFirst(t)
  const before = Date.now()
  const scene = await fullDisk(scope)
  if (WANTS_PICTURES) await scene.work(PICTURES_WORK)
  const working = WANTS_PICTURES ? scene.work(PICTURES_WORK, false) : undefined
  working?.catch(() => {})
  const browser = await startBrowser(scope)
  const { page, complaints } = await openPage(browser, scene.url, LOOKS['light'])
  await whole(page)

  await t.test('in words, at the top', async () => {
    assert.equal(await page.locator('h1').innerText(), "disk1: the host's disk is full")
    const card = await page.locator('.problem.broken').innerText()
    assert.match(card, /^BROKEN NOW\n/)
    assert.match(card, /writes failed with ENOSPC/)
    assert.match(card, /Free space on the file system of \S+disk1\.img, or enlarge it/)
    const [, hours = '', minutes = '', seconds = ''] = /Since (\d\d):(\d\d):(\d\d) · /.exec(card) ?? []
    const since = new Date(before)
    since.setUTCHours(Number(hours), Number(minutes), Number(seconds), 999)
    assert.ok(since.getTime() >= before && since.getTime() <= Date.now() + 1000, card)
    await page.locator('.problem .where').filter({ hasText: 'sectors' }).waitFor()
    const first = (scene.failed[0] ?? 0) / SECTOR
    assert.match(await page.locator('.problem .where').innerText(), new RegExp(`within sectors ${first}–`))
    assert.match(await page.title(), /^▲ disk1: the host's disk is full/)
  })

  await t.test('with what the file systems have left, of which one can be outgrown', async () => {
    const backings = await page.locator('.backing').allInnerTexts()
    const [full = '', roomy = ''] = backings.map((text) => text.replaceAll(/\s+/g, ' '))
    assert.match(
      full,
      /srv 0 B free of 1\d\d(\.\d)? MiB The image on it may still take \d+(\.\d)? MiB; nothing is free\.$/,
    )
    assert.match(
      roomy,
      /fast 1\d\d(\.\d)? MiB free of 160 MiB The 2 images on it may still take 128 MiB; there is room/,
    )
  })

  await t.test("on the map, whose failed ranges are the ledger's, read by hovering", async () => {
    const { stdout } = await command(['errors', 'disk1', '--json', '--state-dir', scene.state])
    const entries = JSON.parse(stdout) as LedgerEntry[]
    const listed = entries.reduce((sum, { count }) => sum + count, 0)
    assert.equal(listed, scene.failed.length)
    for (const { offset, length, count, client, time } of entries.filter((_, index) => index % 5 === 0)) {
      const told = await hover(page, offset + length / 2, 2 ** 30)
      const sectors = `sectors ${offset / SECTOR}–${(offset + length) / SECTOR - 1}`
      const requests = `${count} request${count === 1 ? '' : 's'} of ${client}`
      assert.ok(
        told.includes(`failed: ${sectors}, write ENOSPC, ${requests}, ${time.slice(11, 19)}`),
        `${told}\n${sectors}`,
      )
    }
    assert.match(await hover(page, 0, 2 ** 30), /^Offset 0 \(0 B\), sectors 0–2047 \| Data\.$/)
    assert.match(await hover(page, 2 ** 30 - 1, 2 ** 30), /A hole: takes no space/)
  })

  await t.test('by keyboard alone, down to the sector', async () => {
    for (let presses = 0; (await page.evaluate('document.activeElement?.id')) !== 'map'; presses++) {
      assert.ok(presses < 60, 'the map cannot be reached with Tab')
      await page.keyboard.press('Tab')
    }
    await page.mouse.move(0, 0)
    await page.keyboard.press('ArrowRight')
    assert.match(await page.locator('#readout').innerText(), /^Offset 1,048,576 \(1 MiB\)/)
    for (const wanted of ['64 KiB a square', '4 KiB a square', 'a sector a square']) {
      await page.keyboard.press('Enter')
      await page.locator('#map-window').filter({ hasText: wanted }).waitFor()
    }
    await page.keyboard.press('ArrowDown')
    await page.keyboard.press('ArrowLeft')
    assert.match(await page.locator('#readout').innerText(), /^Offset [\d,]+ \([\d.]+ MiB\), sector \d+\nData\./)
    await page.keyboard.press('Home')
    await page.locator('#map-window').filter({ hasText: 'The whole disk' }).waitFor()
    await page.locator('#ranges button').first().press('Enter')
    await page.locator('#readout').filter({ hasText: 'failed: sectors' }).waitFor()
    await page.keyboard.press('Home')
    await page.locator('#map-window').filter({ hasText: 'The whole disk' }).waitFor()
  })

  await t.test('to everybody: axe finds nothing, light, dark and on a phone, where nothing is cut off', async () => {
    for (const [name, options] of Object.entries(LOOKS)) {
      const opened = await openPage(browser, scene.url, options)
      await whole(opened.page)
      assert.deepEqual(await axe(opened.page), [], name)
      const [wide, seen] = (await opened.page.evaluate(
        '[document.documentElement.scrollWidth, innerWidth]',
      )) as number[]
      assert.ok((wide ?? 0) <= (seen ?? 0), `${name}: ${wide} of ${seen}`)
      if (WANTS_PICTURES) await opened.page.screenshot({ path: `docs/images/status-${name}.png` })
      complaints.push(...opened.complaints)
      await opened.page.context().close()
    }
  })

  await t.test('with links that stay on this server and lead somewhere', async () => {
    await page.locator('.problem.broken a').click()
    await page.locator('#out-of-space').waitFor()
    assert.deepEqual(await axe(page), [])
  })

  assert.deepEqual(complaints, [])
})
