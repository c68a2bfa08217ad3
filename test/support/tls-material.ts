// Certificates and keys of the tests, made by openssl when a test needs them, in the layout that candor, QEMU and libnbd
// share. Law: two authorities that know nothing of each other, so that a foreign client is foreign.
import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Scope } from './faults.js'
import { scratchFolder } from './guest-images.js'

/** What is missing without openssl is told by `needs(...TLS_PROGRAMS)`. */
export const TLS_PROGRAMS = ['openssl'] as const

export const PSK_USER = 'alice'
export const PSK_KEY = '7f9c2b4e6d8a0f1c3e5b79d2a4c6e8f00112233445566778899aabbccddeeff0'
export const CLIENT_SUBJECT = 'O=us,CN=guest'

/** Folders and files, each as one kind of client, or the server, wants it. */
export interface TlsMaterial {
  readonly folder: string
  /** For --tls-dir: server-cert.pem, server-key.pem, ca-cert.pem. */
  readonly server: string
  /** ca-cert.pem and a client's certificate that it signed. */
  readonly client: string
  /** ca-cert.pem alone: the client trusts, and shows nothing. */
  readonly trusting: string
  /** The right ca-cert.pem, and a client's certificate of another authority with the same names. */
  readonly foreign: string
  /** For --tls-psk, and libnbd's tls-psk-file. */
  readonly pskFile: string
  /** A folder of QEMU's, with keys.psk. */
  readonly pskFolder: string
}

/** Signs, or makes an authority where `authority` is undefined. Writes STEM-key.pem and STEM-cert.pem in `folder`. */
export function makeCertificate(
  folder: string,
  stem: string,
  subject: string,
  authority?: string,
  ...extensions: readonly string[]
): void {
  mkdirSync(folder, { recursive: true })
  const signing =
    authority === undefined ? [] : ['-CA', join(authority, 'ca-cert.pem'), '-CAkey', join(authority, 'ca-key.pem')]
  const added = authority === undefined ? [] : ['basicConstraints=critical,CA:FALSE', ...extensions]
  const outputs = ['-keyout', join(folder, `${stem}-key.pem`), '-out', join(folder, `${stem}-cert.pem`)]
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']
  const words = ['req', '-x509', ...key, ...outputs, '-subj', subject, '-multivalue-rdn', ...signing]
  execFileSync('openssl', [...words, ...added.flatMap((extension) => ['-addext', extension])], { stdio: 'pipe' })
}

/** A client's certificate of `authority`, with the server's authority to trust. */
export function makeClient(
  material: Pick<TlsMaterial, 'folder'>,
  name: string,
  subject: string,
  authority: string,
): string {
  const folder = join(material.folder, name)
  makeCertificate(folder, 'client', subject, authority, 'extendedKeyUsage=clientAuth')
  copyFileSync(join(material.folder, 'ca', 'ca-cert.pem'), join(folder, 'ca-cert.pem'))
  return folder
}

export function makeTlsMaterial(scope: Scope): TlsMaterial {
  const folder = scratchFolder(scope)
  const at = (...names: readonly string[]) => join(folder, ...names)
  makeCertificate(at('ca'), 'ca', '/CN=candor test authority')
  makeCertificate(at('other-ca'), 'ca', '/CN=another authority')
  const names = 'subjectAltName=DNS:localhost,IP:127.0.0.1'
  makeCertificate(at('server'), 'server', '/CN=localhost', at('ca'), names, 'extendedKeyUsage=serverAuth')
  mkdirSync(at('trusting'))
  for (const place of ['server', 'trusting']) copyFileSync(at('ca', 'ca-cert.pem'), at(place, 'ca-cert.pem'))
  mkdirSync(at('psk'))
  writeFileSync(at('psk', 'keys.psk'), `${PSK_USER}:${PSK_KEY}\nbob:${'00'.repeat(32)}\n`)
  return {
    folder,
    server: at('server'),
    client: makeClient({ folder }, 'client', '/O=us/CN=guest', at('ca')),
    trusting: at('trusting'),
    foreign: makeClient({ folder }, 'foreign', '/O=us/CN=guest', at('other-ca')),
    pskFile: at('psk', 'keys.psk'),
    pskFolder: at('psk'),
  }
}
