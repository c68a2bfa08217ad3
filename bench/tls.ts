// What the jobs over TLS need: an authority and a server's certificate made for this run, fio's environment, and the
// word on what was negotiated. Law: all servers show the same certificate, and a difference in ciphers is told.

import { copyFile, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type Finished, run, tellingLine } from './command.js'

export interface TlsMaterial {
  /** server-cert.pem, server-key.pem and ca-cert.pem: the layout that all three servers share. */
  readonly serverDir: string
  /** Makes libnbd trust the authority: fio allows no URI that names files, so a home folder of its own has them. */
  readonly clientEnvironment: { readonly HOME: string }
}

const KEY = '-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2'.split(' ')

/** Made inside `dir`, or the sentence that says why the jobs over TLS are skipped. */
export async function makeTlsMaterial(dir: string): Promise<TlsMaterial | string> {
  const serverDir = join(dir, 'tls')
  const home = join(dir, 'home')
  const trusted = join(home, '.pki/libnbd')
  await mkdir(serverDir)
  await mkdir(trusted, { recursive: true })
  const [ca, caKey] = [join(serverDir, 'ca-cert.pem'), join(dir, 'ca-key.pem')]
  const authority = ['-subj', '/CN=candor bench', '-keyout', caKey, '-out', ca]
  const server = ['-CA', ca, '-CAkey', caKey, '-addext', 'basicConstraints=critical,CA:FALSE', '-subj', '/CN=localhost']
  const uses = ['-addext', 'subjectAltName=DNS:localhost', '-addext', 'extendedKeyUsage=serverAuth']
  const files = ['-keyout', join(serverDir, 'server-key.pem'), '-out', join(serverDir, 'server-cert.pem')]
  for (const words of [authority, [...server, ...uses, ...files]]) {
    const made = await run('openssl', ['req', '-x509', ...KEY, ...words], dir)
    if (made.missing) return 'openssl is not installed, and makes the certificates'
    if (!made.ok) return `openssl makes no certificates: ${tellingLine(made.stderr)}`
  }
  await copyFile(ca, join(trusted, 'ca-cert.pem'))
  return { serverDir, clientEnvironment: { HOME: home } }
}

/** Has GnuTLS, which is libnbd's, tell of its handshakes on stderr. */
export const TALKATIVE = { GNUTLS_DEBUG_LEVEL: '4' }

/** Version and suite of a handshake that GnuTLS told of; undefined when it did not. */
export function negotiated({ stderr }: Finished): string | undefined {
  const suite = /Selected cipher suite: (?:GNUTLS_)?(\w+)/.exec(stderr)?.[1]
  // Suites of TLS 1.3 name no key exchange.
  return suite && `${/^(AES|CHACHA20)_/.test(suite) ? 'TLS 1.3' : 'TLS 1.2'}, ${suite}`
}
