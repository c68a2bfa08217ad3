// Debian's Chromium, as the tests drive it: the real page in a real browser, and every error of its console is one.
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import type { Scope } from './faults.js'

export const CHROMIUM = '/usr/bin/chromium'

// A container's root may not make the namespaces of the sandbox; what is opened here is our own.
const ARGUMENTS = ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu']

export async function startBrowser(scope: Scope): Promise<Browser> {
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ARGUMENTS })
  scope.after(() => browser.close())
  return browser
}

/** A page, with what its console complained of. Requests to anywhere else than this server are complaints too. */
export async function openPage(
  browser: Browser,
  url: string,
  options: BrowserContextOptions = {},
): Promise<{ readonly page: Page; readonly complaints: string[] }> {
  const context = await browser.newContext({ locale: 'en-GB', timezoneId: 'UTC', ...options })
  const page = await context.newPage()
  const complaints: string[] = []
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text())
  })
  page.on('pageerror', (error) => complaints.push(String(error)))
  page.on('request', (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) complaints.push(`asked ${request.url()}`)
  })
  await page.goto(url)
  return { page, complaints }
}
