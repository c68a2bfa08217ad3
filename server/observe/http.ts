// Starts the HTTP thread, and keeps it told of what there is to see. If it dies, NBD goes on.
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { OpenError } from '../../backends/index.js'
import type { Observed } from './family.js'
import type { HttpThreadData, HttpThreadReport } from './http-thread.js'

export interface HttpAddress {
  readonly host: string
  readonly port: number
}

export interface HttpDoor {
  readonly address: HttpAddress
  /** Tells the thread of exports that came or went. */
  update(observed: Observed): void
  close(): Promise<void>
}

/** Listens in a thread of its own. @throws OpenError when it cannot */
export async function openHttp(
  address: HttpAddress,
  observed: Observed,
  onFailure: (error: Error) => void,
): Promise<HttpDoor> {
  const workerData: HttpThreadData = { ...address, observed }
  const worker = new Worker(new URL('./http-thread.js', import.meta.url), { workerData, name: 'candor-http' })
  const [report] = (await once(worker, 'message')) as [HttpThreadReport]
  if (!('port' in report)) {
    await worker.terminate()
    throw new OpenError(sentence(report.code, report.message, address))
  }
  worker.on('error', onFailure)
  worker.unref()
  return {
    address: { host: address.host, port: report.port },
    update: (update) => worker.postMessage(update),
    close: async () => {
      await worker.terminate()
    },
  }
}

function sentence(code: string | undefined, message: string, { host, port }: HttpAddress): string {
  const what = `http ${host}:${port}`
  if (code === 'EADDRINUSE') {
    return `${what} is in use by another program: stop that one, or choose another with --http HOST:PORT (or --http off)`
  }
  if (code === 'EACCES') return `no permission to listen on ${what}: choose another port with --http HOST:PORT`
  return `cannot listen on ${what}: ${message}`
}
