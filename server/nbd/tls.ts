// TLS for connections that ask for NBD_OPT_STARTTLS: certificates in the layout that nbdkit and QEMU share, or
// pre-shared keys in GnuTLS's format. TLS 1.2 is the floor.
import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { createSecureContext, createServer, type TLSSocket, type TlsOptions } from 'node:tls'
import { OpenError } from '../../backends/index.js'

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

/** Upgrades connections; made once, at start. */
export interface TlsUpgrade {
  /** Resolves with the secured socket, or rejects with why there is none; `socket` is then of no more use. */
  upgrade(socket: Socket): Promise<TLSSocket>
}

/** Suites whose key both sides know. */
const PSK_CIPHERS = 'ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-AES256-GCM-SHA384:PSK-AES256-GCM-SHA384:PSK-AES128-GCM-SHA256'

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

function certificates(directory: string, verifyClient: boolean): TlsOptions {
  const options = {
    cert: readPem(directory, 'server-cert.pem'),
    key: readPem(directory, 'server-key.pem'),
    ...(verifyClient ? { ca: readPem(directory, 'ca-cert.pem') } : {}),
  }
  try {
    createSecureContext(options)
    // OpenSSL takes any text for an empty list of authorities, and would refuse every client later.
    if (verifyClient) readAuthority(readPem(directory, 'ca-cert.pem'))
  } catch (error) {
    throw new OpenError(`the certificates in ${directory} are of no use: ${(error as Error).message}`)
  }
  return { ...options, requestCert: verifyClient, rejectUnauthorized: verifyClient }
}

function readAuthority(pem: Buffer): X509Certificate {
  return new X509Certificate(pem)
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

function preSharedKeys(path: string, besideCertificates: boolean): TlsOptions {
  const keys = readPskFile(path)
  return {
    pskCallback: (_socket, identity) => keys.get(identity) ?? null,
    ciphers: besideCertificates ? `${SHA256_FIRST}:${PSK_CIPHERS}:DEFAULT` : PSK_CIPHERS,
    ...(besideCertificates ? {} : { maxVersion: 'TLSv1.2' as const }),
  }
}

/** @throws OpenError with one sentence for the operator */
export function openTls({ offered, directory, verifyClient, pskFile }: TlsConfig): TlsUpgrade | undefined {
  if (!offered) return undefined
  const options: TlsOptions = {
    minVersion: 'TLSv1.2',
    ...(directory === undefined ? {} : certificates(directory, verifyClient)),
    ...(pskFile === undefined ? {} : preSharedKeys(pskFile, directory !== undefined)),
  }
  return { upgrade: (socket) => upgrade(socket, options) }
}

// A tls.Server that never listens: given an open socket it does all that a listening one does with an accepted one,
// the client's certificate included.
function upgrade(socket: Socket, options: TlsOptions): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const server = createServer(options)
    server.once('secureConnection', resolve)
    server.once('tlsClientError', (error) => reject(error))
    socket.once('close', () => reject(new Error('the client left during the TLS handshake')))
    server.emit('connection', socket)
  })
}

/** The subject of the client's certificate as one line (CN=…, O=…); undefined where none was verified. */
export function clientSubject(socket: TLSSocket): string | undefined {
  if (!socket.authorized) return undefined
  const subject = socket.getPeerX509Certificate()?.subject
  return subject?.split('\n').join(',')
}
