// Counters by name, for a process of another version that goes on counting. Law: what shows how things are at this moment
// is found out anew, and is not among them.
import { COMMANDS } from 'nbd-protocol'
import {
  CONNECTIONS_REFUSED_AT,
  CONNECTIONS_TOTAL_AT,
  type Counters,
  DEFERRED_AT,
  DROPPED_AT,
  ERRORS_AT,
  HANDSHAKE_FAILURES,
  HANDSHAKE_FAILURES_AT,
  INJECTED_AT,
  LATENCY_AT,
  LEDGER_LOST_AT,
  LOG_LOST_AT,
  PROTOCOL_ERRORS,
  PROTOCOL_ERRORS_AT,
  READ_BYTES_AT,
  REFUSED_BY_RESERVE_AT,
  REPEATED_AT,
  REQUESTS_AT,
  STATE_AT,
  STATE_ERRNO_AT,
  STATE_SINCE_AT,
  UNCLEAN_AT,
  VHOST_USER_REQUESTS_AT,
  WRITTEN_BYTES_AT,
} from './counters.js'

/** Where a section begins, and how many numbers it has. */
type Places = Readonly<Record<string, readonly [at: number, length: number]>>

export const EXPORT_SECTIONS: Places = {
  requests: [REQUESTS_AT, COMMANDS],
  readBytes: [READ_BYTES_AT, 1],
  writtenBytes: [WRITTEN_BYTES_AT, 1],
  dropped: [DROPPED_AT, 1],
  state: [STATE_AT, 1],
  stateSince: [STATE_SINCE_AT, 1],
  stateErrno: [STATE_ERRNO_AT, 1],
  unclean: [UNCLEAN_AT, 1],
  injected: [INJECTED_AT, 1],
  ledgerLost: [LEDGER_LOST_AT, 1],
  refusedByReserve: [REFUSED_BY_RESERVE_AT, 1],
  deferred: [DEFERRED_AT, COMMANDS],
  errors: [ERRORS_AT, LATENCY_AT - ERRORS_AT],
  latency: [LATENCY_AT, VHOST_USER_REQUESTS_AT - LATENCY_AT],
  vhostUserRequests: [VHOST_USER_REQUESTS_AT, COMMANDS],
}

export const SERVER_SECTIONS: Places = {
  connections: [CONNECTIONS_TOTAL_AT, 1],
  refused: [CONNECTIONS_REFUSED_AT, 1],
  logLost: [LOG_LOST_AT, 1],
  handshakeFailures: [HANDSHAKE_FAILURES_AT, HANDSHAKE_FAILURES.length],
}

/** Of a thread's block. */
export const PULSE_SECTIONS: Places = {
  repeated: [REPEATED_AT, 1],
  protocolErrors: [PROTOCOL_ERRORS_AT, PROTOCOL_ERRORS.length],
}

/** Numbers by section. */
export type Sections = Readonly<Record<string, readonly number[]>>

/** The sections as sums over blocks of one kind. */
export function sectionsOf(places: Places, blocks: readonly Counters[]): Sections {
  return Object.fromEntries(
    Object.entries(places).map(([name, [at, length]]) => [
      name,
      Array.from({ length }, (_, index) => blocks.reduce((sum, block) => sum + (block[at + index] ?? 0), 0)),
    ]),
  )
}

/** Adds to a block what is known of it; sections that one of the two does not know are left as they are. */
export function addSections(places: Places, sections: Sections, into: Counters): void {
  for (const [name, [at, length]] of Object.entries(places)) {
    const numbers = sections[name] ?? []
    for (let index = 0; index < Math.min(length, numbers.length); index++) {
      into[at + index] = (into[at + index] ?? 0) + (numbers[index] ?? 0)
    }
  }
}
