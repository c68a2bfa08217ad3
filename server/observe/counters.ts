// Counters as numbers in shared memory: the hot loop adds to them without a call, and the thread that serves the
// metrics reads them without asking. Each block has one writer.

import { COMMANDS, commandIndex } from 'nbd-protocol'
import { ERRNOS } from '../../backends/index.js'
import { LATENCY_SLOTS, OUTCOMES } from './latency-buckets.js'

// Places in an export's block.
export const REQUESTS_AT = 0
export const READ_BYTES_AT = REQUESTS_AT + COMMANDS
export const WRITTEN_BYTES_AT = READ_BYTES_AT + 1
export const IN_FLIGHT_AT = WRITTEN_BYTES_AT + 1
export const DROPPED_AT = IN_FLIGHT_AT + 1
export const SUSPECT_BYTES_AT = DROPPED_AT + 1
export const STATE_AT = SUSPECT_BYTES_AT + 1
export const UNCLEAN_AT = STATE_AT + 1
export const HELD_AT = UNCLEAN_AT + 1
export const INJECTED_AT = HELD_AT + 1
export const INJECTING_AT = INJECTED_AT + 1
export const OLDEST_SINCE_AT = INJECTING_AT + 1
/** ms since the epoch; 0: not so, or nobody knows since when. */
export const STATE_SINCE_AT = OLDEST_SINCE_AT + 1
export const STATE_ERRNO_AT = STATE_SINCE_AT + 1
export const HELD_SINCE_AT = STATE_ERRNO_AT + 1
export const RECORD_FAILED_AT = HELD_SINCE_AT + 1
export const LEDGER_LOST_AT = RECORD_FAILED_AT + 1
export const ALLOCATED_AT = LEDGER_LOST_AT + 1
export const RESERVE_AT = ALLOCATED_AT + 1
export const REFUSED_BY_RESERVE_AT = RESERVE_AT + 1
export const DEFERRED_AT = REFUSED_BY_RESERVE_AT + 1
/** ms since the epoch; 0: it is held. */
export const RELEASED_SINCE_AT = DEFERRED_AT + COMMANDS
export const ERRORS_AT = RELEASED_SINCE_AT + 1
export const LATENCY_AT = ERRORS_AT + COMMANDS * ERRNOS
/** Requests that came by vhost-user; those at REQUESTS_AT came by NBD. */
export const VHOST_USER_REQUESTS_AT = LATENCY_AT + COMMANDS * OUTCOMES.length * LATENCY_SLOTS
const EXPORT_SLOTS = VHOST_USER_REQUESTS_AT + COMMANDS

/** States of an export, in the order of their numbers at STATE_AT. */
export const EXPORT_STATES = ['ok', 'degraded', 'detached'] as const
export type ExportState = (typeof EXPORT_STATES)[number]

/** What is observed may also be an export that is wanted and not served: its counters say no more than that. */
export const OBSERVED_STATES = [...EXPORT_STATES, 'failed'] as const
export const STATE_FAILED = OBSERVED_STATES.indexOf('failed')

/** Why a handshake did not reach transmission; label values of candor_handshake_failures_total. */
export const HANDSHAKE_FAILURES = [
  'bad-client-flags',
  'bad-option-magic',
  'option-too-long',
  'too-many-options',
  'export-refused',
  'bytes-behind-starttls',
  'tls-failed',
  'time-out',
  'disconnect',
  'other',
] as const
export type HandshakeFailure = (typeof HANDSHAKE_FAILURES)[number]

/** Why a connection was ended in transmission; label values of candor_protocol_errors_total. */
export const PROTOCOL_ERRORS = [
  'bad-request-magic',
  'payload-too-long',
  'vhost-user-message',
  'broken-ring',
  'other',
] as const
export type ProtocolFailure = (typeof PROTOCOL_ERRORS)[number]

// Places in the server's block.
export const CONNECTIONS_AT = 0
export const CONNECTIONS_TOTAL_AT = 1
export const CONNECTIONS_REFUSED_AT = 2
export const HEARTBEAT_AT = 3
export const LOG_LOST_AT = 4
export const HANDSHAKE_FAILURES_AT = 5
const SERVER_SLOTS = HANDSHAKE_FAILURES_AT + HANDSHAKE_FAILURES.length

/** A block of counters that another thread may read. */
export type Counters = Float64Array<SharedArrayBuffer>

export function sharedBlock(slots: number): Counters {
  return new Float64Array(new SharedArrayBuffer(slots * Float64Array.BYTES_PER_ELEMENT))
}

export function exportCounters(): Counters {
  return sharedBlock(EXPORT_SLOTS)
}

export function serverCounters(): Counters {
  return sharedBlock(SERVER_SLOTS)
}

// Places in a thread's block.
/** ms since the epoch of its last beat. */
export const PULSE_AT = 0
/** Log lines that were summed up instead of told. */
export const REPEATED_AT = 1

export const PROTOCOL_ERRORS_AT = 2
const PULSE_SLOTS = PROTOCOL_ERRORS_AT + PROTOCOL_ERRORS.length

export function pulseBlock(): Counters {
  return sharedBlock(PULSE_SLOTS)
}

/** The place of a reason among `reasons`; an unknown one counts as 'other'. */
export function reasonAt(reasons: readonly string[], reason: string): number {
  const index = reasons.indexOf(reason)
  return index === -1 ? reasons.indexOf('other') : index
}

/** The place of an error counter: command by the spec's number, the host's errno. */
export function errorAt(command: number, errno: number): number {
  return ERRORS_AT + commandIndex(command) * ERRNOS + (errno < ERRNOS ? errno : 0)
}

/** Where the histogram of a command (its row) and an outcome begins; `place` = row * OUTCOMES.length + outcome. */
export function latencyAt(place: number): number {
  return LATENCY_AT + place * LATENCY_SLOTS
}

/** Adds to one place; absent places do not exist, so that the type checker's doubt is settled here. */
export function count(counters: Counters, at: number, by = 1): void {
  counters[at] = (counters[at] ?? 0) + by
}
