// What a connection is made of, and how it tells of its end.
import type { Socket } from 'node:net'
import type { HandshakeHost, HandshakeLimits, ProtocolError } from 'nbd-protocol'
import type { ExportRegistry } from '../exports/registry.js'
import type { Peer } from './negotiation.js'
import type { TlsUpgrade } from './tls.js'
import type { TransmissionLimits } from './transmission-options.js'

export interface ConnectionLimits extends HandshakeLimits, TransmissionLimits {
  /** From accept to the end of the handshake. */
  readonly handshakeTimeoutMs: number
  /** Bytes of a WRITE past the maximum payload that are thrown away with an error; longer ones end the connection. */
  readonly oversizeBytesMax: number
}

/** Why a connection is ended before its time, for counters and the log. */
export interface ConnectionFault {
  readonly phase: 'handshake' | 'transmission'
  readonly fault: 'time-out' | 'disconnect' | ProtocolError | Error
}

export interface ConnectionOptions {
  readonly accepted: Socket
  readonly registry: ExportRegistry
  /** Who is at the other end; a verified certificate's subject is added when TLS brings one. */
  readonly peer: Peer
  readonly host: HandshakeHost
  /** undefined: NBD_OPT_STARTTLS is refused by the host. */
  readonly tls: TlsUpgrade | undefined
  readonly limits: ConnectionLimits
  /** Called when the fault is found, before the peer can notice the end. */
  readonly onFault: (fault: ConnectionFault) => void
  /** Called once, when the socket is closed. */
  readonly onEnd: () => void
  readonly onTransmission: (exportName: string) => void
}
