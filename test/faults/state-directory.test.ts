// The state directory when its own storage fails, and what others did to the files in it. Law: no command is answered
// with success that could not be remembered; the ledger is a help, and never stands in the way.
import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type Client, NBD_CMD_FLAG_FUA, NBD_EIO } from 'nbd-protocol'
import { temporaryFolder } from '../support/candor.js'
import {
  attach,
  command,
  exportState,
  lastFirst,
  logged,
  MIB,
  refused,
  type Scope,
  serve,
  stamped,
} from '../support/faults.js'
import { type LoopDisk, mountLoopDisk, sparseFile } from '../support/loop-disk.js'
import { needs, needsRoot } from '../support/requirements.js'

const NAME = 'disk.img'
const SIZE = 16 * MIB

function scratch(scope: Scope): string {
  const { path, remove } = temporaryFolder()
  scope.after(remove)
  return path
}

function smallDisk(scope: Scope): LoopDisk {
  return mountLoopDisk(scope, { type: 'ext4', sizeMiB: 16, mountOptions: 'errors=remount-ro' })
}

const PLACES: readonly { readonly what: string; spoil(disk: LoopDisk): void; readonly says: RegExp }[] = [
  {
    what: 'on a full file system',
    spoil: (disk) => {
      mkdirSync(join(disk.folder, 'state'))
      writeFileSync(join(disk.folder, 'state', 'lock'), '')
      try {
        writeFileSync(join(disk.folder, 'filler'), Buffer.alloc(SIZE))
      } catch {
        // It is full then.
      }
    },
    says: /^candor: the record of \S+ cannot be kept in \S+ \(ENOSPC[^\n]*: make room there, or [^\n]*--state-dir\n$/,
  },
  {
    what: 'on a file system that is read-only',
    spoil: (disk) => writeFileSync(`/sys/fs/ext4/${basename(disk.device)}/trigger_fs_error`, 'a test'),
    says: /^candor: the state directory \S+ cannot be made \(EROFS[^\n]*: choose another with --state-dir DIR\n$/,
  },
]

for (const { what, spoil, says } of PLACES) {
  test(`a state directory ${what} stops the start, and the sentence names the remedy`, {
    skip: needsRoot('mkfs.ext4'),
  }, async (t) => {
    const scope = lastFirst(t)
    const disk = smallDisk(scope)
    const image = sparseFile(join(scratch(scope), NAME), SIZE)
    spoil(disk)
    const words = [
      'serve',
      image,
      '--http',
      'off',
      '--listen',
      'tcp:127.0.0.1:0',
      '--state-dir',
      join(disk.folder, 'state'),
    ]
    for (let count = 0; count < 2; count++) {
      const { code, stderr } = await command(words)
      assert.equal(code, 1, stderr)
      assert.match(stderr, says)
    }
  })
}

test('a record whose dirty mark cannot be stored stops the start: an unclean end would go unnoticed', {
  skip: needs('strace'),
}, async (t) => {
  const scope = lastFirst(t)
  const folder = scratch(scope)
  const image = sparseFile(join(folder, NAME), SIZE)
  const state = join(folder, 'state')
  const words = ['serve', image, '--http', 'off', '--listen', 'tcp:127.0.0.1:0', '--state-dir', state]
  const spoilt = ['strace', '-f', '-o', '/dev/null', '-e', 'trace=fdatasync', '-e', 'inject=fdatasync:error=EIO']
  const { code, stderr } = await command(words, spoilt)
  assert.equal(code, 1, stderr)
  assert.match(stderr, /^candor: the record of \S+ cannot be kept in \S+ \(EIO\): make room there, or [^\n]*\n$/)
  const candor = await serve(scope, [image, '--state-dir', state])
  await (await attach(candor)).flush()
  assert.equal((await candor.stop()).code, 0)
})

const FIRST_CHANGES: readonly { readonly what: string; change(client: Client): Promise<unknown> }[] = [
  { what: 'write', change: (client) => client.write(MIB, stamped(MIB, MIB)) },
  { what: 'FUA write', change: (client) => client.write(MIB, stamped(MIB, MIB), NBD_CMD_FLAG_FUA) },
  { what: 'zeroing', change: (client) => client.writeZeroes(MIB, MIB) },
]

for (const { what, change } of FIRST_CHANGES) {
  test(
    `when the state directory becomes read-only, every command of the export is EIO, beginning with the next ${what}`,
    {
      skip: needsRoot('mkfs.ext4'),
    },
    (t) => assertRefusesAll(t, change),
  )
}

async function assertRefusesAll(t: TestContext, change: (client: Client) => Promise<unknown>): Promise<void> {
  const scope = lastFirst(t)
  const disk = smallDisk(scope)
  const image = sparseFile(join(scratch(scope), NAME), SIZE)
  const candor = await serve(scope, [image, '--state-dir', join(disk.folder, 'state')])
  const client = await attach(candor)
  await client.write(0, stamped(0, MIB))
  await client.flush()
  writeFileSync(`/sys/fs/ext4/${basename(disk.device)}/trigger_fs_error`, 'a test')
  await client.read(0, MIB)
  // What is changed here could not be told to the next server.
  const requests = [
    change(client),
    client.read(0, MIB),
    client.write(0, stamped(0, MIB)),
    client.write(0, stamped(0, MIB), NBD_CMD_FLAG_FUA),
    client.trim(0, MIB),
    client.writeZeroes(0, MIB),
    client.flush(),
  ]
  await Promise.all(requests.map((request) => refused(request, NBD_EIO)))
  assert.equal(await exportState(candor, NAME), 'degraded')
  assert.equal(logged(candor, /is degraded: its record in the state directory cannot be written/).length, 1)
  assert.equal((await candor.stop()).code, 2)
}

const LEDGERS: readonly { readonly what: string; make(path: string): void; readonly lost: boolean }[] = [
  { what: 'full of what is no ledger', make: (path) => writeFileSync(path, 'no\n{"a":1}\nnull\n\0\n'), lost: false },
  { what: 'a folder', make: (path) => mkdirSync(path), lost: true },
]

for (const { what, make, lost } of LEDGERS) {
  test(`a ledger that is ${what} hurts nobody`, { skip: needs('setpriv') }, async (t) => {
    const scope = lastFirst(t)
    const state = scratch(scope)
    const ledger = join(state, `errors-${NAME}.jsonl`)
    make(ledger)
    const image = sparseFile(join(scratch(scope), NAME), SIZE)
    const candor = await serve(scope, [image, '--state-dir', state, '--inject', 'read:EIO,count=1'])
    const client = await attach(candor)
    await refused(client.read(0, MIB), NBD_EIO)
    await client.write(0, stamped(0, MIB), NBD_CMD_FLAG_FUA)
    assert.equal((await candor.stop()).code, 0)
    const { code, stdout, stderr } = await command(['errors', NAME, '--state-dir', state])
    assert.match(stderr, lost ? /^candor: \S+ cannot be read \(EISDIR[^\n]*\n$/ : /^candor: 4 damaged lines [^\n]+\n$/)
    assert.deepEqual([code, /read at 0, 1 MiB .*: EIO, 1 request/.test(stdout)], lost ? [1, false] : [0, true])
    assert.ok(readdirSync(state).includes(basename(ledger)))
  })
}
