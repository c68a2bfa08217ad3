// What a connection is made of, and how it tells of its end.
import { ProtocolError } from 'nbd-protocol'
import type { Export } from '../exports/export.js'
import type { EndedFault } from '../io/io-host.js'
import type { Progress } from './moved.js'
import type { Established } from './negotiation.js'
import type { PayloadBudget } from './payload-budget.js'
import type { TransmissionLimits } from './transmission-options.js'

export interface ConnectionLimits extends TransmissionLimits {
  /** Bytes of payload that all connections of the server may hold together. */
  readonly payloadBytesMax: number
  /** Bytes that are read of a peer whose requests are held, since the end of its stream may lie behind them. */
  readonly lookAheadBytesMax: number
  /** Bytes of a WRITE past the maximum payload that are thrown away with an error; longer ones end the connection. */
  readonly oversizeBytesMax: number
}

/** Why a connection is ended before its time, for counters and the log. */
export interface ConnectionFault {
  readonly phase: 'handshake' | 'transmission'
  readonly fault: 'time-out' | 'disconnect' | ProtocolError | Error
}

export interface ConnectionOptions {
  /** A socket whose handshake is done; the connection's own from here on. */
  readonly fd: number
  /** What the client sent behind its handshake. */
  readonly leftover: Uint8Array
  /** It was served elsewhere before: this is where it goes on. */
  readonly progress?: Progress | undefined
  /** Bytes of the export as the client was told; by default what it has now. */
  readonly size?: number | undefined
  readonly served: Export
  readonly established: Established
  /** The peer as log and ledger name it. */
  readonly client: string
  readonly limits: ConnectionLimits
  /** What all connections of the server may hold together. */
  readonly budget: PayloadBudget
  /** Called when the fault is found, before the peer can notice the end. */
  readonly onFault: (fault: ConnectionFault) => void
  /** Called once, when the socket is closed. */
  readonly onEnd: () => void
}

/** A fault as it can be told to another thread. */
export function tellable({ phase, fault }: ConnectionFault): EndedFault {
  const isProtocolError = fault instanceof ProtocolError
  const reason = isProtocolError ? fault.code : typeof fault === 'string' ? fault : 'other'
  return { phase, reason, isProtocolError, detail: fault instanceof Error ? fault.message : fault }
}
