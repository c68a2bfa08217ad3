// Credentials that are of no use: one sentence that names the file, exit code 1, and nothing is opened.
import { createPrivateKey } from 'node:crypto'
import { copyFileSync, cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { type Mistake, type Scene, serving, testMistakes } from '../support/faults-mistakes.js'
import { needs } from '../support/requirements.js'
import { makeTlsMaterial, TLS_PROGRAMS } from '../support/tls-material.js'

const skip = needs(...TLS_PROGRAMS)

/** A copy of sound credentials in the scene's folder, with something done to it. */
function spoilt(server: string, spoil: (tls: string) => void): (scene: Scene) => string[] {
  return (scene) => {
    const tls = join(scene.folder, 'tls')
    cpSync(server, tls, { recursive: true })
    spoil(tls)
    return [...serving(scene, scene.image), '--tls-dir', tls, '--tls-verify-client']
  }
}

function pemMistakes(server: string, otherKey: string): Mistake[] {
  const each = ['server-cert.pem', 'server-key.pem', 'ca-cert.pem'].flatMap((pem): Mistake[] => [
    {
      title: `no ${pem}`,
      words: spoilt(server, (tls) => rmSync(join(tls, pem))),
      says: [`{folder}/tls/${pem}`, 'cannot be read', 'docs/security.md'],
    },
    {
      title: `a folder that is named ${pem}`,
      words: spoilt(server, (tls) => {
        rmSync(join(tls, pem))
        mkdirSync(join(tls, pem))
      }),
      says: [`{folder}/tls/${pem}`, 'cannot be read'],
    },
    {
      title: `a ${pem} that holds something else`,
      words: spoilt(server, (tls) => writeFileSync(join(tls, pem), 'not PEM at all\n')),
      says: ['{folder}/tls', 'of no use'],
    },
    {
      title: `an empty ${pem}`,
      words: spoilt(server, (tls) => writeFileSync(join(tls, pem), '')),
      says: ['{folder}/tls', 'of no use'],
    },
  ])
  const wrongKey: Mistake = {
    title: 'a key that belongs to another certificate',
    words: spoilt(server, (tls) => copyFileSync(otherKey, join(tls, 'server-key.pem'))),
    says: ['{folder}/tls', 'of no use'],
  }
  const locked = (['pkcs8', 'sec1'] as const).map(
    (type): Mistake => ({
      title: `a key that wants a passphrase, as ${type}`,
      words: spoilt(server, (tls) => {
        const path = join(tls, 'server-key.pem')
        const how = { type, format: 'pem', cipher: 'aes-256-cbc', passphrase: 'secret' } as const
        writeFileSync(path, createPrivateKey(readFileSync(path)).export(how))
      }),
      says: ['{folder}/tls/server-key.pem wants a passphrase', "'openssl pkey -in {folder}/tls/server-key.pem'"],
    }),
  )
  return [...each, wrongKey, ...locked]
}

function psk(content: string | undefined, ...more: readonly string[]): (scene: Scene) => string[] {
  return (scene) => {
    const file = join(scene.folder, 'keys')
    if (content !== undefined) writeFileSync(file, content)
    return [...serving(scene, scene.image), '--tls-psk', file, ...more]
  }
}

const GOOD = `alice:${'ab'.repeat(32)}\n`
const PSK: readonly Mistake[] = [
  { title: 'no file', words: psk(undefined), says: ['--tls-psk {folder}/keys', 'cannot be read'] },
  { title: 'an empty file', words: psk('\n \n'), says: ['{folder}/keys', 'holds no key'] },
  { title: 'a line without a colon', words: psk(`${GOOD}bob\n`), says: ['{folder}/keys', 'line 2', 'identity:key'] },
  { title: 'a line without a key', words: psk('bob:\n'), says: ['line 1'] },
  { title: 'a line without an identity', words: psk(`${GOOD}\n:abcd\n`), says: ['line 3'] },
  { title: 'half a byte', words: psk('bob:abc\n'), says: ['line 1', 'hex'] },
  { title: 'a key that is not hexadecimal', words: psk('bob:secret!!\n'), says: ['line 1', 'hex'] },
]

const WORDS: readonly Mistake[] = ['allow', 'require'].map((mode) => ({
  title: `--tls ${mode} without credentials`,
  words: (scene) => [...serving(scene, scene.image), '--tls', mode],
  says: [`--tls ${mode}`, '--tls-dir', '--tls-psk'],
}))

const VERIFY: readonly Mistake[] = [
  {
    title: '--tls-verify-client with keys alone',
    words: psk(GOOD, '--tls-verify-client'),
    says: ['--tls-verify-client', '--tls-dir'],
  },
  {
    title: '--allow-subjects without verified clients',
    words: psk(GOOD, '--allow-subjects', 'CN=guest'),
    says: ['--allow-subjects', '--tls-verify-client'],
  },
]

if (skip === false) {
  const { server, client } = makeTlsMaterial({ after })
  testMistakes('certificates', pemMistakes(server, join(client, 'client-key.pem')))
  testMistakes('pre-shared keys', PSK)
  testMistakes('words about TLS', [...WORDS, ...VERIFY])
} else test('mistakes with credentials', { skip })
