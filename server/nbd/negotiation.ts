// The server's answers to the questions of the handshake: which exports there are, and how one is shown.
import type { HandshakeExport, HandshakeHost } from 'nbd-protocol'
import type { Export } from '../exports/export.js'
import type { ExportRegistry } from '../exports/registry.js'
import { CONTEXT_NAMES } from './block-status.js'

/** Bytes of the largest READ or WRITE that candor takes: what the spec says every server should bear. */
export const PAYLOAD_BYTES_MAX = 32 << 20

/** What an export looks like from the wire. */
export function describeExport(entry: Export): HandshakeExport {
  const { minimumBlockSize, preferredBlockSize, extents } = entry.backend.can
  return {
    name: entry.name,
    description: entry.description,
    size: entry.size,
    transmissionFlags: entry.transmissionFlags,
    blockSizes: { minimum: minimumBlockSize, preferred: preferredBlockSize, maximum: PAYLOAD_BYTES_MAX },
    contexts: extents ? CONTEXT_NAMES : [],
  }
}

/** The handshake's view of the registry. `isShuttingDown` is asked at every option. */
export function handshakeHost(registry: ExportRegistry, isShuttingDown: () => boolean): HandshakeHost {
  return {
    tls: 'off',
    get shuttingDown() {
      return isShuttingDown()
    },
    list: () => registry,
    find: (name) => {
      const found = registry.find(name)
      return found === undefined ? undefined : describeExport(found)
    },
  }
}
