// What the operator may say wrongly: images that cannot be served, and words that mean nothing.
import assert from 'node:assert/strict'
import { chmodSync, existsSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { command, lastFirst, logged, MIB, serve } from '../support/faults.js'
import { type Mistake, QUIET, type Scene, serving, testMistakes } from '../support/faults-mistakes.js'
import { scratchFolder } from '../support/guest-images.js'
import { mountLoopDisk, mountMemory, run, sparseFile } from '../support/loop-disk.js'
import { needs, needsRoot } from '../support/requirements.js'

/** Root may open everything, unless it is told not to. */
const WITHOUT_PRIVILEGE =
  process.getuid?.() === 0 ? ['setpriv', '--bounding-set=-dac_override,-dac_read_search', '--'] : []

const IMAGES: readonly Mistake[] = [
  {
    title: 'an image that does not exist',
    words: (scene) => serving(scene, join(scene.folder, 'missing.img')),
    says: ['there is no image at {folder}/missing.img', '--create SIZE'],
  },
  {
    title: 'a directory',
    words: (scene) => serving(scene, scene.folder),
    says: ['{folder} is a directory', 'name the file itself'],
  },
  {
    title: 'a directory, read-only',
    words: (scene) => serving(scene, scene.folder, '--read-only'),
    says: ['{folder} is a directory', 'name the file itself'],
  },
  {
    title: 'a character device',
    words: (scene) => serving(scene, '/dev/null'),
    says: ['/dev/null is neither a file nor a block device'],
  },
  {
    title: 'a path that leads through a file',
    words: (scene) => serving(scene, join(scene.image, 'disk.img')),
    says: ['a part of {image}/disk.img is not a directory', 'right path'],
  },
  {
    title: 'an image without permission',
    skip: needs('setpriv'),
    words: (scene) => {
      chmodSync(scene.image, 0)
      return serving(scene, scene.image)
    },
    says: ['no permission to open {image}', 'user who may'],
    wrapper: WITHOUT_PRIVILEGE,
  },
  {
    title: 'an image on a read-only file system',
    skip: needsRoot(),
    words: (scene) => {
      const { folder } = mountMemory(scene.scope, 'tmpfs')
      const image = sparseFile(join(folder, 'disk.img'), MIB)
      run('mount', '-o', 'remount,ro', folder)
      return serving(scene, image)
    },
    says: ['disk.img lies on a read-only file system', '--read-only'],
  },
  {
    title: 'two images of one name',
    words: (scene) => serving(scene, scene.image, 'disk.img=/nowhere/else'),
    says: ["two images are named 'disk.img'", 'other=/nowhere/else'],
  },
  { title: 'no image', words: (scene) => serving(scene), says: ['no image is given', 'candor serve IMAGE'] },
  { title: 'an image without a path', words: (scene) => serving(scene, 'disk='), says: ["'disk='", 'NAME=IMAGE'] },
  {
    title: 'candor create on a file that exists',
    words: ({ image }) => ['create', image, '1G'],
    says: ['{image} exists already', 'remove it first'],
  },
  {
    title: 'candor create in a folder that does not exist',
    words: ({ folder }) => ['create', join(folder, 'none', 'disk.img'), '1G'],
    says: ['{folder}/none/disk.img', 'right path'],
  },
]

const WORDS: readonly Mistake[] = [
  ...['10X', '1.5G', '-1', '', '9999999T', 'G'].map((size) => ({
    title: `the size '${size}'`,
    words: ({ folder }: Scene) => ['create', join(folder, 'new.img'), size],
    says: [`SIZE is '${size}'`, '10M'],
  })),
  {
    title: 'a size of --create that is none',
    words: (scene) => serving(scene, join(scene.folder, 'new.img'), '--create', 'big'),
    says: ["--create is 'big'", '10M'],
  },
  {
    title: '--create with --read-only',
    words: (scene) => serving(scene, scene.image, '--create', '1G', '--read-only'),
    says: ['--create and --read-only exclude each other'],
  },
  ...['--create', '--listen', '--http', '--state-dir', '--shutdown-timeout'].map((flag) => ({
    title: `${flag} without a value`,
    words: (scene: Scene) => ['serve', scene.image, flag],
    says: [flag.slice(2)],
  })),
  {
    title: '--read-only with a value that is neither true nor false',
    words: (scene) => serving(scene, scene.image, '--read-only=maybe'),
    says: ['--read-only', 'maybe'],
  },
  {
    title: 'an unknown flag',
    words: (scene) => serving(scene, scene.image, '--frob'),
    says: ['frob', 'candor --help'],
  },
  { title: 'an unknown command', words: () => ['frob'], says: ['frob', 'candor --help'] },
  { title: 'no command', words: () => [], says: ['no command', 'candor --help'] },
  ...[
    'tcp',
    'ftp:127.0.0.1:1',
    'unix:',
    'tcp:127.0.0.1:99999',
    'tcp:127.0.0.1:x',
    'tcp::1',
    `unix:/${'x'.repeat(120)}`,
  ].map((listen) => ({
    title: `--listen ${listen.slice(0, 30)}`,
    words: ({ folder, image }: Scene) => ['serve', image, '--http', 'off', '--state-dir', folder, '--listen', listen],
    says: ['--listen', listen.replace('unix:/x', '/x')],
  })),
  ...['9809', '127.0.0.1:x', '127.0.0.1:99999', ':9809', 'on'].map((http) => ({
    title: `--http ${http}`,
    words: ({ folder, image }: Scene) => [
      'serve',
      image,
      '--listen',
      'tcp:127.0.0.1:0',
      '--state-dir',
      folder,
      '--http',
      http,
    ],
    says: ['--http', `'${http}'`],
  })),
  {
    title: '--shutdown-timeout soon',
    words: (scene) => serving(scene, scene.image, '--shutdown-timeout', 'soon'),
    says: ["--shutdown-timeout is 'soon'", '10s'],
  },
  {
    title: '--connections-max 0',
    words: (scene) => serving(scene, scene.image, '--connections-max', '0'),
    says: ['--connections-max', 'from 1 on'],
  },
  ...[
    ['--create', '1G'],
    ['--state-dir', '/nowhere'],
    ['--log-level', 'info'],
  ].map((flag) => ({
    title: `${flag[0]} given twice`,
    words: (scene: Scene) => serving(scene, scene.image, ...flag, ...flag),
    says: [`${flag[0]} is given more than once`, 'give it once'],
  })),
  {
    title: 'one image under two names',
    words: (scene) => serving(scene, `a=${scene.image}`, `b=${scene.image}`),
    says: ['{image} is to be served twice', "'a' and 'b'", 'leave one out'],
  },
]

testMistakes('images', IMAGES)
testMistakes('words', WORDS)

test('a start that fails leaves nothing behind that the next one would call an unclean end', async (t) => {
  const scope = lastFirst(t)
  const folder = scratchFolder(scope)
  const image = sparseFile(join(folder, 'a.img'), MIB)
  const state = ['--state-dir', join(folder, 'state')]
  const refused = await command(['serve', image, join(folder, 'none.img'), '--http', 'off', ...state])
  assert.equal(refused.code, 1)
  const candor = await serve(scope, [image, ...state])
  assert.deepEqual(logged(candor, /unclean end/), [])
  await candor.stop()
  const readers = await serve(scope, [`a=${image}`, `b=${image}`, '--read-only'])
  assert.equal(readers.uris.length, 2)
})

test('an image too large for its file system is refused and not left behind, where the next start would serve it', {
  skip: needsRoot('mkfs.ext4'),
}, async (t) => {
  const scope = lastFirst(t)
  const disk = mountLoopDisk(scope, { type: 'ext4', sizeMiB: 64 })
  const image = join(disk.folder, 'big.img')
  for (const words of [
    ['create', image, '32T'],
    ['serve', image, '--create', '32T', ...QUIET, '--state-dir', 'none'],
  ]) {
    const { code, stderr } = await command(words)
    assert.equal(code, 1)
    assert.match(stderr, /^candor: [^\n]*big\.img[^\n]+\n$/)
    assert.ok(!existsSync(image), `an image was left behind after: ${stderr}`)
  }
})
