// What the handshake asks of the server behind it, and how it ends. The answers are values: nothing here waits.
import type { BlockSizes, MetaContext } from './options.js'
import type { ReplyStyle } from './reply.js'

/** One export as this client may see it. */
export interface HandshakeExport {
  /** The canonical name; the client may have asked by another one (the empty name, for one). */
  readonly name: string
  readonly description: string
  /** Bytes. */
  readonly size: number
  /** Transmission flags but for those that depend on the handshake (SEND_DF, BLOCK_STATUS_PAYLOAD). */
  readonly transmissionFlags: number
  readonly blockSizes: BlockSizes
  /** Names of the metadata contexts that can be selected on this export. */
  readonly contexts: readonly string[]
}

export interface HandshakeHost {
  /** `require` refuses everything but STARTTLS and ABORT before the upgrade ("TLS support", FORCEDTLS). */
  readonly tls: 'off' | 'allow' | 'require'
  /** True once the server is on its way out: options are answered with NBD_REP_ERR_SHUTDOWN. */
  readonly shuttingDown: boolean
  /** Exports that this client may list. */
  list(): Iterable<{ readonly name: string; readonly description: string }>
  /** The export behind a name, or undefined where there is none or none for this client. */
  find(name: string): HandshakeExport | undefined
  /**
   * Why this client may not have an export that it may know of (an error reply and a sentence), or undefined. `enters`: it
   * is about to be let in, and a host that counts has counted it. Absent: whoever finds an export may have it.
   */
  refusal?(found: HandshakeExport, enters: boolean): ExportRefusal | undefined
}

export interface ExportRefusal {
  /** NBD_REP_ERR_TLS_REQD or NBD_REP_ERR_POLICY. */
  readonly error: number
  readonly message: string
}

export interface HandshakeLimits {
  /** Bytes of data that an option may bring; more is skipped and answered with NBD_REP_ERR_TOO_BIG. */
  readonly optionLengthMax: number
  /** Options in one handshake; one more ends the connection. */
  readonly optionsMax: number
}

export type HandshakeOutcome =
  | {
      readonly kind: 'transmission'
      /** The export's canonical name. */
      readonly exportName: string
      readonly replyStyle: ReplyStyle
      readonly transmissionFlags: number
      /** The client asked for NBD_INFO_BLOCK_SIZE, and so keeps to what it was told ("Size constraints"). */
      readonly knowsBlockSizes: boolean
      /** The metadata contexts that NBD_CMD_BLOCK_STATUS answers with. */
      readonly contexts: readonly MetaContext[]
    }
  | { readonly kind: 'starttls' }
  | { readonly kind: 'abort' }
