// The status page and the handbook, from memory: read once at start, so that a disk that fails later takes neither away.
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import type { FastifyInstance } from 'fastify'
import { htmlOf } from './markdown.js'

// Compiled, this file lies in dist/server/observe; what is served as it was written lies in the package's own folders.
const PACKAGE = new URL('../../../', import.meta.url)
const SOURCES = new URL('server/observe/page/', PACKAGE)
const COMPILED = new URL('./page/', import.meta.url)
const DOCS = new URL('docs/', PACKAGE)

const TYPES: Readonly<Record<string, string>> = {
  html: 'text/html; charset=utf-8',
  css: 'text/css; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  svg: 'image/svg+xml',
}

const MODULES = [
  'page',
  'feed',
  'words',
  'problems',
  'exports',
  'disk',
  'map-view',
  'map-canvas',
  'map-words',
  'charts',
  'sessions',
  'space',
]
const HANDBOOK = ['errors', 'api']

function typeOf(name: string): string {
  return TYPES[name.split('.').at(-1) ?? ''] ?? 'application/octet-stream'
}

/** By path. */
function assets(): Map<string, string> {
  const found = new Map<string, string>()
  const read = (path: string, url: URL) => found.set(path, readFileSync(fileURLToPath(url), 'utf8'))
  read('/', new URL('index.html', SOURCES))
  for (const name of ['page.css', 'icon.svg']) read(`/page/${name}`, new URL(name, SOURCES))
  for (const name of MODULES) read(`/page/${name}.js`, new URL(`${name}.js`, COMPILED))
  const chart = createRequire(import.meta.url).resolve('uplot/dist/uPlot.iife.min.js')
  read('/page/uplot.js', new URL(`file://${chart}`))
  read('/page/uplot.css', new URL('uPlot.min.css', `file://${chart}`))
  for (const name of HANDBOOK) {
    const url = new URL(`${name}.md`, DOCS)
    if (existsSync(url)) found.set(`/docs/${name}`, handbookPage(readFileSync(url, 'utf8')))
  }
  return found
}

function handbookPage(markdown: string): string {
  const title = /^# (.*)$/m.exec(markdown)?.[1] ?? 'candor'
  return [
    '<!doctype html><html lang="en"><head><meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    `<title>${title.replaceAll('<', '&lt;')}</title><link rel="stylesheet" href="/page/page.css">`,
    '<link rel="icon" href="/page/icon.svg"></head><body class="handbook"><main>',
    `<p><a href="/">Back to the status page</a></p>\n${htmlOf(markdown)}</main></body></html>`,
  ].join('')
}

/** @throws when the package is not whole */
export function routePage(app: FastifyInstance): void {
  for (const [path, text] of assets()) {
    const type = path === '/' || path.startsWith('/docs/') ? typeOf('html') : typeOf(path)
    app.get(path, async (_request, reply) => reply.type(type).send(text))
  }
}
