// The HTTP thread: metrics, health, JSON and the status page, beside the I/O threads and never in them. Everything here
// only reads.
import { once } from 'node:events'
import { getPriority, setPriority } from 'node:os'
import { parentPort, workerData } from 'node:worker_threads'
import { fastify } from 'fastify'
import { plainDescriptor } from '../nbd/adopt-socket.js'
import { routeApi } from './http-api.js'
import { Events } from './http-events.js'
import { guard } from './http-guard.js'
import type { FromHttp, HttpThreadData, ToHttp } from './http-messages.js'
import { routePage } from './http-page.js'
import { RequestFault } from './http-query.js'
import { metricsPage } from './metrics.js'
import { NoAnswer, Questions } from './questions.js'
import { Watch } from './watch.js'

/** Bytes of a request's line and headers, and of a body that nobody reads. */
const REQUEST_BYTES_MAX = 16 << 10
/** From the first byte of a request to its last, and how long a connection may be silent. */
const REQUEST_TIMEOUT_MS = 10_000
const TIMEOUT_CHECK_MS = 1000
const SAMPLE_MS = 1000

/** Where processors are scarce, I/O goes before a scrape. On Linux a priority is the thread's own. */
const NICER = 10
const NICEST = 19

setPriority(Math.min(NICEST, getPriority() + NICER))
const data = workerData as HttpThreadData
let observed = data.observed

function tell(message: FromHttp): void {
  parentPort?.postMessage(message)
}

const questions = new Questions((id, request) => tell({ kind: 'ask', id, request }))
parentPort?.on('message', (message: ToHttp) => {
  if (message.kind === 'observed') observed = message.observed
  else questions.answered(message.id, message.reply)
})

const page = await metricsPage(() => observed)
const app = fastify({
  logger: false,
  bodyLimit: REQUEST_BYTES_MAX,
  requestTimeout: REQUEST_TIMEOUT_MS,
  connectionTimeout: REQUEST_TIMEOUT_MS,
  keepAliveTimeout: REQUEST_TIMEOUT_MS,
  exposeHeadRoutes: true,
  routerOptions: { maxParamLength: REQUEST_BYTES_MAX },
  http: { maxHeaderSize: REQUEST_BYTES_MAX, connectionsCheckingInterval: TIMEOUT_CHECK_MS },
})
app.server.maxConnections = data.connectionsMax
// A connection that could not be accepted, for want of descriptors: whoever asked sees it closed.
app.server.on('error', () => {})

app.setNotFoundHandler((_request, reply) => reply.code(404).send({ error: 'there is nothing here: see /api/schema' }))
app.setErrorHandler((error, _request, reply) => {
  const { statusCode = 500, message } = error as { statusCode?: number; message: string }
  const status = error instanceof RequestFault || error instanceof NoAnswer ? error.status : statusCode
  if (status === 503) reply.header('retry-after', '1')
  return reply.code(status).type('application/json; charset=utf-8').serializer(JSON.stringify).send({ error: message })
})
guard(app, [data.host, ...data.names])

app.get('/metrics', async ({ headers }, reply) => {
  const { contentType, text } = await page(headers.accept)
  return reply.type(contentType).header('vary', 'accept').send(text)
})

const sources = { observed: () => observed, watch: new Watch(), questions }
const events = new Events(sources, data.watchersMax)
routeApi(app, sources)
events.route(app)
routePage(app)

async function listenOnMoved(fd: number): Promise<void> {
  await app.ready()
  app.server.listen({ fd })
  await once(app.server, 'listening')
}

sources.watch.sample(observed)
setInterval(() => {
  sources.watch.sample(observed)
  events.tick()
}, SAMPLE_MS).unref()

try {
  if (data.fd === undefined) await app.listen({ host: data.host, port: data.port })
  else await listenOnMoved(data.fd)
  const address = app.server.address()
  tell({
    kind: 'listening',
    port: typeof address === 'object' && address !== null ? address.port : data.port,
    fd: plainDescriptor(app.server) ?? -1,
  })
} catch (error) {
  const { code, message } = error as NodeJS.ErrnoException
  tell({ kind: 'refused', code, message })
}
