// The typed door to TLS: OpenSSL's, as Node carries it, in threads of the addon's own, so that a secured connection is a socket
// in the clear for everybody else.
import { fileIo, NoDescriptorError } from './file-io.js'

/** Wire numbers of versions (RFC 8446, 4.1.2 and 4.2.1). */
export const TLS_1_2 = 0x0303
export const TLS_1_3 = 0x0304

/** What the server shows of itself, and whom it believes. Texts are PEM; what is undefined does not apply. */
export interface TlsSettings {
  /** The server's certificate, and behind it those up to its authority. */
  readonly cert?: string | undefined
  readonly key?: string | undefined
  /** Clients have to show a certificate that one of these signed. */
  readonly ca?: string | undefined
  /** Of TLS 1.2, as OpenSSL lists them (ciphers(1)). */
  readonly ciphers?: string | undefined
  /** The same of TLS 1.3. */
  readonly suites?: string | undefined
  /** Pre-shared keys by identity. */
  readonly keys?: readonly (readonly [string, Uint8Array])[] | undefined
  readonly versionMin: number
  readonly versionMax: number
}

/** Settings as OpenSSL wants them; of use to `TlsTunnels` alone. */
export interface TlsContext {
  readonly nativeTlsContext: unique symbol
}

interface TlsGroup {
  readonly nativeTlsGroup: unique symbol
}

export interface TlsDoors {
  /** @throws Error with OpenSSL's words */
  tlsContext(settings: TlsSettings): TlsContext
  tlsTunnels(): TlsGroup
  /** A descriptor, or minus errno. */
  tlsSecure(tunnels: TlsGroup, context: TlsContext, socket: number): number
  tlsOpen(tunnels: TlsGroup): number
}

/** @throws Error with OpenSSL's words */
export function tlsContext(settings: TlsSettings): TlsContext {
  return fileIo.tlsContext(settings)
}

/** Secured connections that are counted together. */
export class TlsTunnels {
  readonly #native = fileIo.tlsTunnels()

  /** How many there are, those that are about to end included. */
  get open(): number {
    return fileIo.tlsOpen(this.#native)
  }

  /**
   * Does the server's part of the handshake on a connected socket, which is the tunnel's from here on. Returns a descriptor that
   * speaks for the client in the clear: first comes the handshake's outcome (`TlsOutcome`), then what the client says.
   * @throws NoDescriptorError, and has taken nothing then
   */
  secure(context: TlsContext, socket: number): number {
    const plain = fileIo.tlsSecure(this.#native, context, socket)
    if (plain < 0) throw new NoDescriptorError(-plain)
    return plain
  }
}
