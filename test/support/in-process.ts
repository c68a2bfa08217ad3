// A front end in the test's own process, over any backend: for what a real host cannot be made to do on command.
import { connect } from 'node:net'
import { join } from 'node:path'
import { type ByteStream, type Client, connectClient, type NegotiationWishes } from 'nbd-protocol'
import type { Backend } from '../../backends/index.js'
import { Access } from '../../server/exports/access.js'
import { Export } from '../../server/exports/export.js'
import type { ExportOptions } from '../../server/exports/export-options.js'
import { ExportDirectory } from '../../server/io/directory.js'
import { ExportHost } from '../../server/io/export-host.js'
import { DEFAULT_LIMITS } from '../../server/limits.js'
import type { NbdLimits } from '../../server/nbd/nbd-options.js'
import { NbdServer } from '../../server/nbd/server.js'
import { serverCounters } from '../../server/observe/counters.js'
import { Log } from '../../server/observe/log.js'
import { temporaryFolder } from './candor.js'

export interface InProcess {
  readonly served: Export
  readonly server: NbdServer
  readonly host: ExportHost
  readonly path: string
  /** A new client of the export. */
  client(wishes?: NegotiationWishes): Promise<Client>
  close(): Promise<void>
}

/** Serves `backend` as the export 'disk' on a Unix socket. */
export async function serveInProcess(
  backend: Backend,
  limits: Partial<NbdLimits> = {},
  options: Pick<ExportOptions, 'onSpace' | 'ledger' | 'record'> = {},
): Promise<InProcess> {
  const folder = temporaryFolder()
  const path = join(folder.path, 'nbd')
  const log = new Log(() => {})
  const served = new Export({ name: 'disk', backend, witness: log, ...options })
  const directory = new ExportDirectory()
  const allLimits = { ...DEFAULT_LIMITS, ...limits }
  const server = new NbdServer({ directory, counters: serverCounters(), limits: allLimits, log })
  const host = new ExportHost({ limits: allLimits, stateDirectory: undefined, log, events: server })
  directory.add({ name: 'disk', face: host.adopt(served), access: new Access(), host })
  await server.listen({ kind: 'unix', path })
  return {
    served,
    server,
    host,
    path,
    client: async (wishes) => connectClient(await socketStream(path), 'disk', wishes),
    close: async () => {
      server.drain()
      server.finish()
      host.drain()
      await host.finish(1000)
      await host.close()
      await backend.close()
      log.close()
      folder.remove()
    },
  }
}

/** A connected Unix socket as nbd-protocol's client half wants it. */
export async function socketStream(path: string): Promise<ByteStream> {
  const socket = connect(path)
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve).once('error', reject)
  })
  const chunks = socket[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  return {
    write: (bytes) => {
      socket.write(bytes)
    },
    read: async () => {
      const next = await chunks.next()
      return next.done ? undefined : next.value
    },
    close: async () => {
      socket.destroy()
    },
  }
}
