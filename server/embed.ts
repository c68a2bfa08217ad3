// `import { serve, openBackend } from 'candor'`: the server inside another Node program, over storage of the program's own
// or over images. Law: what is served this way keeps the same rules as `candor serve`; only the words to start it differ.
import type { Backend } from '../backends/index.js'
import { Access } from './exports/access.js'
import { Export } from './exports/export.js'
import type { SpacePolicy } from './exports/space-hold.js'
import { ExportDirectory } from './io/directory.js'
import { ExportHost } from './io/export-host.js'
import { DEFAULT_LIMITS, type Limits } from './limits.js'
import { uriOf } from './nbd/listen.js'
import { NbdServer } from './nbd/server.js'
import { serverCounters } from './observe/counters.js'
import { Log, type LogLine } from './observe/log.js'
import { parseListen, UsageError } from './values.js'

export interface ServedExport {
  /** What clients ask for; the first export also answers to the empty name. */
  readonly name: string
  readonly backend: Backend
  readonly description?: string
  /** Default: ENOSPC is told at once. */
  readonly onSpace?: SpacePolicy
}

export interface EmbedOptions {
  readonly exports: readonly ServedExport[]
  /** `tcp:HOST:PORT` (port 0 asks for any) or `unix:PATH`. */
  readonly listen: readonly string[]
  readonly limits?: Partial<Limits>
  /** Hears every line of the log; the default is silence. */
  readonly onLog?: (line: LogLine) => void
}

export interface Served {
  /** For each listener the URIs of all exports, in the order of `listen` and `exports`. */
  readonly uris: readonly string[]
  /**
   * Accepts no more, answers what is in flight, syncs every export. The backends stay open: they are the caller's.
   * `synced` is false when a sync failed.
   */
  close(): Promise<{ readonly synced: boolean }>
}

/**
 * Serves backends from this thread. What a failed sync made suspect is known as long as the server lives: without a
 * state directory nothing outlives it.
 * @throws OpenError with one sentence when an address cannot be listened on, UsageError when it is none
 */
export async function serve(options: EmbedOptions): Promise<Served> {
  const limits = { ...DEFAULT_LIMITS, ...options.limits }
  const log = new Log(options.onLog ?? (() => {}))
  const directory = new ExportDirectory()
  const server = new NbdServer({ directory, counters: serverCounters(), limits, log })
  const host = new ExportHost({ limits, stateDirectory: undefined, log, events: server })
  for (const each of options.exports) {
    const face = host.adopt(new Export({ ...each, witness: log }))
    directory.add({ name: each.name, face, access: new Access(), host })
  }
  const close = async () => {
    server.drain()
    host.drain()
    await host.finish(limits.shutdownTimeoutMs)
    server.finish()
    const synced = await host.sync()
    await host.close()
    log.close()
    return { synced }
  }
  const uris: string[] = []
  try {
    for (const words of options.listen) {
      const wanted = parseListen(words)
      if (wanted.kind === 'vhost-user')
        throw new UsageError(`${words} is for 'candor serve': listen on tcp: or unix: here`)
      const address = await server.listen(wanted)
      uris.push(...options.exports.map(({ name }) => uriOf(address, name, false)))
    }
  } catch (error) {
    await close()
    throw error
  }
  return { uris, close }
}

export type { Backend, Capabilities, Condition, Extent, Outcome, SparseRead, Storage } from '../backends/index.js'
export { OpenError, openBackend, storageBackend } from '../backends/index.js'
export type { LogLine } from './observe/log.js'
