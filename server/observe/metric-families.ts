// Every metric of candor as a row: its name, what it means, and where its numbers are read.

import { COMMANDS, commandName } from 'nbd-protocol'
import { ERRNOS, errnoName } from '../../backends/index.js'
import {
  CONNECTIONS_AT,
  CONNECTIONS_REFUSED_AT,
  CONNECTIONS_TOTAL_AT,
  type Counters,
  DROPPED_AT,
  EXPORT_STATES,
  errorAt,
  HANDSHAKE_FAILURES,
  HANDSHAKE_FAILURES_AT,
  HELD_AT,
  IN_FLIGHT_AT,
  INJECTED_AT,
  INJECTING_AT,
  OLDEST_SINCE_AT,
  PROTOCOL_ERRORS,
  PROTOCOL_ERRORS_AT,
  READ_BYTES_AT,
  REQUESTS_AT,
  STATE_AT,
  SUSPECT_BYTES_AT,
  UNCLEAN_AT,
  WRITTEN_BYTES_AT,
} from './counters.js'

/** What the HTTP thread is told of one export. */
export interface ObservedExport {
  readonly name: string
  readonly size: number
  readonly readOnly: boolean
  /** Where the image lies. */
  readonly path: string
  readonly counters: Counters
  /** [ms since the epoch of its thread's last beat]. */
  readonly pulse: Counters
}

export interface Observed {
  readonly version: string
  readonly server: Counters
  readonly exports: readonly ObservedExport[]
}

export interface Sample {
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

type Collect = (observed: Observed) => Iterable<Sample>

export interface Family {
  readonly name: string
  readonly help: string
  readonly type: 'counter' | 'gauge'
  readonly collect: Collect
}

function* perExport(observed: Observed, at: number): Iterable<Sample> {
  for (const { name, counters } of observed.exports) yield { labels: { export: name }, value: counters[at] ?? 0 }
}

function* ages({ exports }: Observed): Iterable<Sample> {
  for (const { name, counters } of exports) {
    const since = counters[OLDEST_SINCE_AT] ?? 0
    yield { labels: { export: name }, value: since === 0 ? 0 : Math.max(0, Date.now() - since) / 1000 }
  }
}

function* pulses({ exports }: Observed): Iterable<Sample> {
  for (const { name, pulse } of exports) {
    yield { labels: { export: name }, value: Math.max(0, Date.now() - (pulse[0] ?? 0)) / 1000 }
  }
}

function* requests({ exports }: Observed): Iterable<Sample> {
  for (const { name, counters } of exports) {
    for (let command = 0; command < COMMANDS; command++) {
      const value = counters[REQUESTS_AT + command] ?? 0
      if (value > 0) yield { labels: { export: name, frontend: 'nbd', command: commandName(command) }, value }
    }
  }
}

function* errors({ exports }: Observed): Iterable<Sample> {
  for (const { name, counters } of exports) {
    for (let command = 0; command < COMMANDS; command++) {
      for (let errno = 0; errno < ERRNOS; errno++) {
        const value = counters[errorAt(command, errno)] ?? 0
        if (value === 0) continue
        yield { labels: { export: name, command: commandName(command), errno: errnoName(errno) }, value }
      }
    }
  }
}

function* states({ exports }: Observed): Iterable<Sample> {
  for (const { name, counters } of exports) {
    const now = counters[STATE_AT] ?? 0
    for (const [index, state] of EXPORT_STATES.entries()) {
      yield { labels: { export: name, state }, value: index === now ? 1 : 0 }
    }
  }
}

function* byReason({ server }: Observed, reasons: readonly string[], at: number): Iterable<Sample> {
  for (const [index, reason] of reasons.entries()) yield { labels: { reason }, value: server[at + index] ?? 0 }
}

function single(at: number): Collect {
  return ({ server }) => [{ labels: {}, value: server[at] ?? 0 }]
}

/** All of them, in the order in which they are shown. */
export const FAMILIES: readonly Family[] = [
  {
    name: 'candor_requests_total',
    help: 'Requests received, by export, front end and command.',
    type: 'counter',
    collect: requests,
  },
  {
    name: 'candor_errors_total',
    help: "Requests answered with an error, by export, command and the host's errno.",
    type: 'counter',
    collect: errors,
  },
  {
    name: 'candor_read_bytes_total',
    help: 'Bytes read successfully.',
    type: 'counter',
    collect: (observed) => perExport(observed, READ_BYTES_AT),
  },
  {
    name: 'candor_written_bytes_total',
    help: 'Bytes written successfully by WRITE.',
    type: 'counter',
    collect: (observed) => perExport(observed, WRITTEN_BYTES_AT),
  },
  {
    name: 'candor_requests_in_flight',
    help: 'Requests handed to storage and not answered yet.',
    type: 'gauge',
    collect: (observed) => perExport(observed, IN_FLIGHT_AT),
  },
  {
    name: 'candor_oldest_request_age_seconds',
    help: 'How long the oldest request handed to storage has not been answered; 0 while there is none.',
    type: 'gauge',
    collect: ages,
  },
  {
    name: 'candor_thread_pulse_age_seconds',
    help: "How long ago the export's I/O thread beat, once a second: more means that it waits for its storage.",
    type: 'gauge',
    collect: pulses,
  },
  {
    name: 'candor_requests_dropped_total',
    help: 'Requests dropped before storage had them, because their connection was lost.',
    type: 'counter',
    collect: (observed) => perExport(observed, DROPPED_AT),
  },
  {
    name: 'candor_export_size_bytes',
    help: 'Size of the export as clients see it.',
    type: 'gauge',
    collect: ({ exports }) => exports.map(({ name, size }) => ({ labels: { export: name }, value: size })),
  },
  {
    name: 'candor_export_suspect_bytes',
    help: 'Bytes that may have been lost and read as errors until they are written again.',
    type: 'gauge',
    collect: (observed) => perExport(observed, SUSPECT_BYTES_AT),
  },
  {
    name: 'candor_injected_faults_total',
    help: 'Requests that a fault injection rule hit.',
    type: 'counter',
    collect: (observed) => perExport(observed, INJECTED_AT),
  },
  {
    name: 'candor_injection_rules',
    help: 'Fault injection rules in force: anything but 0 means that errors may be made up.',
    type: 'gauge',
    collect: (observed) => perExport(observed, INJECTING_AT),
  },
  {
    name: 'candor_requests_held',
    help: 'Requests that wait for space on the host.',
    type: 'gauge',
    collect: (observed) => perExport(observed, HELD_AT),
  },
  {
    name: 'candor_export_unclean_end',
    help: '1 when the last server of the image, or its host, went down while it was served.',
    type: 'gauge',
    collect: (observed) => perExport(observed, UNCLEAN_AT),
  },
  {
    name: 'candor_export_state',
    help: 'The state of the export: 1 for the one it is in.',
    type: 'gauge',
    collect: states,
  },
  { name: 'candor_connections', help: 'Connections open now.', type: 'gauge', collect: single(CONNECTIONS_AT) },
  {
    name: 'candor_connections_total',
    help: 'Connections accepted.',
    type: 'counter',
    collect: single(CONNECTIONS_TOTAL_AT),
  },
  {
    name: 'candor_connections_refused_total',
    help: 'Connections closed at once because of the bound on connections.',
    type: 'counter',
    collect: single(CONNECTIONS_REFUSED_AT),
  },
  {
    name: 'candor_handshake_failures_total',
    help: 'Connections that ended before transmission, by reason.',
    type: 'counter',
    collect: (observed) => byReason(observed, HANDSHAKE_FAILURES, HANDSHAKE_FAILURES_AT),
  },
  {
    name: 'candor_protocol_errors_total',
    help: 'Connections ended in transmission because the peer broke the protocol, by reason.',
    type: 'counter',
    collect: (observed) => byReason(observed, PROTOCOL_ERRORS, PROTOCOL_ERRORS_AT),
  },
  {
    name: 'candor_build_info',
    help: 'Always 1; the labels tell the version.',
    type: 'gauge',
    collect: ({ version }) => [{ labels: { version, node: process.versions.node }, value: 1 }],
  },
]
