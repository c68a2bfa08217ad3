// TLS for connections that ask for NBD_OPT_STARTTLS: certificates in the layout that nbdkit and QEMU share, or
// pre-shared keys in GnuTLS's format. TLS 1.2 is the floor.
import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { DEFAULT_CIPHERS } from 'node:tls'
import { OpenError, TLS_1_2, TLS_1_3, type TlsContext, type TlsSettings, tlsContext } from '../../backends/index.js'

export const TLS_MODES = ['off', 'allow', 'require'] as const
export type TlsMode = (typeof TLS_MODES)[number]

export interface TlsConfig {
  /** Of the exports that say nothing else. */
  readonly mode: TlsMode
  /** Some export may be had over TLS. */
  readonly offered: boolean
  /** Folder with server-cert.pem, server-key.pem and, to verify clients, ca-cert.pem. */
  readonly directory: string | undefined
  /** Clients have to show a certificate that ca-cert.pem's authority signed. */
  readonly verifyClient: boolean
  /** File of lines `identity:key in hex`, as psktool(1) writes them. */
  readonly pskFile: string | undefined
}

const VERSIONS = { versionMin: TLS_1_2, versionMax: TLS_1_3 }

/** Of an outcome: what it is, and how many bytes tell of it. */
const HEAD_BYTES = 5
const SECURED = 0

/** Suites whose key both sides know. */
const PSK_CIPHERS = 'ECDHE-PSK-CHACHA20-POLY1305:PSK-AES256-GCM-SHA384:PSK-AES128-GCM-SHA256'

/** An external key goes with SHA-256 in TLS 1.3; OpenSSL would choose SHA-384 and fall back to certificates. */
const SHA256_FIRST = 'TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384'

function readPem(directory: string, name: string): Buffer {
  const path = join(directory, name)
  try {
    return readFileSync(path)
  } catch (error) {
    const reason = (error as Error).message
    throw new OpenError(`TLS needs ${path}, which cannot be read (${reason}): see docs/security.md for what it holds`)
  }
}

/** Of both forms in which openssl writes keys. */
const ENCRYPTED = /^(-----BEGIN ENCRYPTED PRIVATE KEY|Proc-Type: 4,ENCRYPTED)/m

function readKey(directory: string): string {
  const key = readPem(directory, 'server-key.pem').toString('latin1')
  if (!ENCRYPTED.test(key)) return key
  const path = join(directory, 'server-key.pem')
  throw new OpenError(
    `${path} wants a passphrase, which nobody is there to type: 'openssl pkey -in ${path}' writes it without one`,
  )
}

function certificates(directory: string, verifyClient: boolean): Partial<TlsSettings> {
  const read = (name: string) => readPem(directory, name).toString('latin1')
  const settings = {
    cert: read('server-cert.pem'),
    key: readKey(directory),
    ca: verifyClient ? read('ca-cert.pem') : undefined,
  }
  try {
    tlsContext({ ...settings, ...VERSIONS })
  } catch (error) {
    throw new OpenError(`the certificates in ${directory} are of no use: ${(error as Error).message}`)
  }
  return settings
}

/** The keys of a PSK file by identity. @throws OpenError naming the line that is wrong */
function readPskFile(path: string): ReadonlyMap<string, Buffer> {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    throw new OpenError(`--tls-psk ${path} cannot be read: ${(error as Error).message}`)
  }
  const keys = new Map<string, Buffer>()
  for (const [index, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue
    const [, identity, key] = /^([^:]+):((?:[0-9a-fA-F]{2})+)$/.exec(line.trim()) ?? []
    if (identity === undefined || key === undefined) {
      throw new OpenError(`--tls-psk ${path}: line ${index + 1} is not 'identity:key in hex'; psktool makes such lines`)
    }
    keys.set(identity, Buffer.from(key, 'hex'))
  }
  if (keys.size === 0) throw new OpenError(`--tls-psk ${path} holds no key: make one with psktool -u NAME -p ${path}`)
  return keys
}

function preSharedKeys(path: string, besideCertificates: boolean): Partial<TlsSettings> {
  const keys = [...readPskFile(path)]
  if (!besideCertificates) return { keys, ciphers: PSK_CIPHERS, versionMax: TLS_1_2 }
  return { keys, ciphers: `${PSK_CIPHERS}:DEFAULT`, suites: SHA256_FIRST }
}

/** @throws OpenError with one sentence for the operator */
export function openTls({ offered, directory, verifyClient, pskFile }: TlsConfig): TlsContext | undefined {
  if (!offered) return undefined
  return tlsContext({
    ciphers: DEFAULT_CIPHERS.split(':')
      .filter((name) => !name.startsWith('TLS_'))
      .join(':'),
    ...VERSIONS,
    ...(directory === undefined ? {} : certificates(directory, verifyClient)),
    ...(pskFile === undefined ? {} : preSharedKeys(pskFile, directory !== undefined)),
  })
}

/** How a handshake ended, as the tunnel tells it in front of all else (tls-tunnel.c). */
export class TlsOutcome {
  #bytes = Buffer.alloc(0)

  /** The rest of `bytes` behind the outcome, when it is whole. */
  receive(bytes: Uint8Array): Uint8Array | undefined {
    this.#bytes = Buffer.concat([this.#bytes, bytes])
    const end = this.#end
    return this.#bytes.length < end ? undefined : this.#bytes.subarray(end)
  }

  get #end(): number {
    return this.#bytes.length < HEAD_BYTES ? HEAD_BYTES : HEAD_BYTES + this.#bytes.readUInt32BE(1)
  }

  /** Why there is no secured connection. */
  get failure(): string | undefined {
    return this.#bytes[0] === SECURED ? undefined : this.#about.toString()
  }

  /** The subject of the client's certificate as one line (CN=…, O=…); undefined where none was verified. */
  get subject(): string | undefined {
    if (this.#about.length === 0) return undefined
    // Node has none for an empty name, which certificates may have whose names are all alternative ones.
    const subject = new X509Certificate(this.#about).subject as string | undefined
    return subject?.split('\n').join(',')
  }

  get #about(): Buffer {
    return this.#bytes.subarray(HEAD_BYTES, this.#end)
  }
}
