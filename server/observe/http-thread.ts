// The HTTP thread: metrics and health, rendered beside the NBD thread and never in it. Everything here only reads.

import { getPriority, setPriority } from 'node:os'
import { parentPort, workerData } from 'node:worker_threads'
import { fastify } from 'fastify'
import { HEARTBEAT_AT } from './counters.js'
import type { Observed } from './family.js'
import { metricsPage } from './metrics.js'

/** What the NBD thread starts this thread with. */
export interface HttpThreadData {
  readonly host: string
  readonly port: number
  readonly observed: Observed
}

/** What comes back: the port that was bound, or why none was. */
export type HttpThreadReport =
  | { readonly port: number }
  | { readonly code: string | undefined; readonly message: string }

/** The NBD thread beats once a second; a heart that stood still for this long is reported. */
const HEARTBEAT_LATE_MS = 10_000
const REQUEST_BYTES_MAX = 16 << 10
const REQUEST_TIMEOUT_MS = 10_000

/** Where processors are scarce, I/O goes before a scrape. On Linux a priority is the thread's own. */
const NICER = 10
const NICEST = 19

setPriority(Math.min(NICEST, getPriority() + NICER))
const data = workerData as HttpThreadData
let observed = data.observed
parentPort?.on('message', (update: Observed) => {
  observed = update
})

const page = await metricsPage(() => observed)
const app = fastify({
  logger: false,
  bodyLimit: REQUEST_BYTES_MAX,
  requestTimeout: REQUEST_TIMEOUT_MS,
  connectionTimeout: REQUEST_TIMEOUT_MS,
  exposeHeadRoutes: true,
})

app.get('/metrics', async ({ headers }, reply) => {
  const { contentType, text } = await page(headers.accept)
  return reply.type(contentType).header('vary', 'accept').send(text)
})

app.get('/healthz', async (_request, reply) => {
  const late = Date.now() - (observed.server[HEARTBEAT_AT] ?? 0)
  if (late < HEARTBEAT_LATE_MS) return { status: 'ok' }
  return reply.code(503).send({ status: 'stalled', reason: `the NBD thread has not answered for ${late} ms` })
})

app.get('/', async (_request, reply) =>
  reply
    .type('text/plain; charset=utf-8')
    .send(`candor ${observed.version}\n\n/metrics  for Prometheus\n/healthz  for probes\n`),
)

function report(message: HttpThreadReport): void {
  parentPort?.postMessage(message)
}

try {
  await app.listen({ host: data.host, port: data.port })
  const address = app.server.address()
  report({ port: typeof address === 'object' && address !== null ? address.port : data.port })
} catch (error) {
  const { code, message } = error as NodeJS.ErrnoException
  report({ code, message })
}
