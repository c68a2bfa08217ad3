// Which metadata contexts a client's queries select ("Metadata querying"). The server's registry of contexts is a list
// of names, so that a new context never touches the handshake.
import type { MetaContext } from './options.js'

/** Names of contexts that the spec and QEMU define. */
export const BASE_ALLOCATION = 'base:allocation'
export const QEMU_ALLOCATION_DEPTH = 'qemu:allocation-depth'

export interface Selection {
  /** The export name that the client named, to the letter. */
  readonly exportName: string
  readonly contexts: readonly MetaContext[]
}

/**
 * The contexts of `available` that the queries select, in the order of `available`. Selecting takes whole names, and
 * gives each an id of its own; listing also takes a namespace with an empty leaf, and everything where nothing is
 * asked. Queries of unknown namespaces or leaves select nothing.
 */
export function matchingContexts(
  available: readonly string[],
  queries: readonly string[],
  setting: boolean,
): readonly MetaContext[] {
  const asked = new Set(queries)
  const everything = !setting && queries.length === 0
  const contexts: MetaContext[] = []
  available.forEach((name, index) => {
    const namespace = name.slice(0, name.indexOf(':') + 1)
    const listed = !setting && asked.has(namespace)
    if (everything || listed || asked.has(name)) contexts.push({ id: setting ? index + 1 : 0, name })
  })
  return contexts
}
