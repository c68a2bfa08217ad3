// Starts the HTTP thread, keeps it told of what there is to see, and answers what it asks. Law: if it dies, NBD goes on;
// whatever comes from there may read and nothing else.
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { OpenError } from '../../backends/index.js'
import { type ControlReply, type ControlRequest, failed } from '../control/export-actions.js'
import type { Observed } from './family.js'
import { type FromHttp, type HttpThreadData, READING_COMMANDS, type ToHttp } from './http-messages.js'

export interface HttpAddress {
  readonly host: string
  readonly port: number
}

export interface HttpDoor {
  readonly address: HttpAddress
  /** The listening socket, which stays the thread's; negative where Node hides it. */
  readonly fd: number
  /** Tells the thread of exports that came or went. */
  update(observed: Observed): void
  close(): Promise<void>
}

export interface HttpEvents {
  /** Answers one of READING_COMMANDS. */
  answer(request: ControlRequest): Promise<ControlReply>
  /** The thread ended; there is no HTTP any more. */
  failed(error: Error): void
}

/** Listens in a thread of its own. @throws OpenError when it cannot */
export async function openHttp(workerData: HttpThreadData, events: HttpEvents): Promise<HttpDoor> {
  const worker = new Worker(new URL('./http-thread.js', import.meta.url), { workerData, name: 'candor-http' })
  const [report] = (await once(worker, 'message')) as [FromHttp]
  if (report.kind !== 'listening') {
    await worker.terminate()
    const { code, message } = report.kind === 'refused' ? report : { code: undefined, message: 'it did not begin' }
    throw new OpenError(sentence(code, message, workerData))
  }
  const tell = (message: ToHttp) => worker.postMessage(message)
  worker.on('message', async (message: FromHttp) => {
    if (message.kind !== 'ask') return
    const { id, request } = message
    tell({ kind: 'answer', id, reply: await answered(events, request) })
  })
  worker.on('error', (error) => events.failed(error))
  worker.unref()
  return {
    address: { host: workerData.host, port: report.port },
    fd: report.fd,
    update: (observed) => tell({ kind: 'observed', observed }),
    close: async () => {
      await worker.terminate()
    },
  }
}

async function answered(events: HttpEvents, request: ControlRequest): Promise<ControlReply> {
  if (!READING_COMMANDS.has(request.command)) return failed(`'${request.command}' is not for HTTP, which only reads`)
  return events.answer(request)
}

function sentence(code: string | undefined, message: string, { host, port }: HttpAddress): string {
  const what = `http ${host}:${port}`
  if (code === 'EADDRINUSE') {
    return `${what} is in use by another program: stop that one, or choose another with --http HOST:PORT (or --http off)`
  }
  if (code === 'EACCES') return `no permission to listen on ${what}: choose another port with --http HOST:PORT`
  return `cannot listen on ${what}: ${message}`
}
