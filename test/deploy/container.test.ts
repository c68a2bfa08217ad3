// The container image of the project's Dockerfile, built by buildah and run by runc. The public image of Node is not pulled:
// a Debian 12 with the Node that runs the tests stands in for it.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chownSync, copyFileSync, existsSync, mkdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parse } from 'yaml'
import { temporaryFolder } from '../support/candor.js'
import { type ContainerImage, containerImage, packageVersion } from '../support/container-image.js'
import { attach } from '../support/faults.js'
import { startContainer } from '../support/oci-container.js'
import { needsRoot } from '../support/requirements.js'

const DEPLOY = fileURLToPath(new URL('../../../deploy/container', import.meta.url))
const OWN_BYTES_MAX = 40 << 20
const NOTHING = '0000000000000000'
const SERVE = ['serve', 'disk.img', '--create', '8M', '--listen', 'unix:nbd', '--http', '127.0.0.1:0']

const skip = needsRoot('buildah', 'runc', 'debootstrap')

test('the image, on a base made here in place of the public one', { skip, timeout: 900_000 }, async (scope) => {
  const image = containerImage(scope)

  await scope.test('says what it is, and runs as an ordinary user', () => describes(image))
  await scope.test('holds what runs and nothing that built it', () => holds(image))
  await scope.test('serves as PID 1 without a capability, on a read-only root, where io_uring is refused', (t) =>
    serves(t, image),
  )
  await scope.test('takes io_uring where it is allowed', (t) => takesRing(t, image))
  await scope.test('serves what the compose file says to a neighbour, and holds writes while its volume is full', (t) =>
    sidecar(t, image),
  )
})

function describes({ config }: ContainerImage): void {
  const label = (name: string) => config.Labels[`org.opencontainers.image.${name}`]
  assert.deepEqual(
    [label('title'), label('licenses'), label('version'), label('revision')],
    ['candor', 'MIT', packageVersion(), 'tested'],
  )
  assert.equal(config.User, '1000:1000')
  assert.equal(config.StopSignal, 'SIGTERM')
  assert.deepEqual(config.Entrypoint, ['candor'])
  assert.deepEqual(Object.keys(config.Volumes).sort(), ['/images', '/var/lib/candor'])
  assert.ok(
    config.Env.every((entry) => !/CERT/.test(entry)),
    'what the builder needed stays with the builder',
  )
}

function holds({ rootfs, ownBytes }: ContainerImage): void {
  assert.ok(ownBytes < OWN_BYTES_MAX, `${ownBytes} bytes above the base`)
  const find = [join(rootfs, 'opt/candor'), '-name', '*.c', '-o', '-name', 'obj.target']
  assert.equal(execFileSync('find', find, { encoding: 'utf8' }), '')
  for (const gone of ['opt/candor/node_modules/typescript', 'opt/candor/test', 'usr/bin/g++']) {
    assert.ok(!existsSync(join(rootfs, gone)), gone)
  }
  // buildah leaves an empty file where something was mounted.
  const authority = join(rootfs, 'run/authority.pem')
  assert.equal(existsSync(authority) ? statSync(authority).size : 0, 0)
}

async function serves(t: TestContext, image: ContainerImage): Promise<void> {
  const { path: folder, remove } = temporaryFolder()
  const container = startContainer(t, image, folder, { args: SERVE, ioUring: 'refused' })
  t.after(remove)
  await Promise.all([container.until(/^ready/m), container.until(/"msg":"reads wait for storage by/)])
  assert.match(container.output(), /"msg":"reads wait for storage by pool"/)
  const client = await attach(`nbd+unix:///disk.img?socket=${folder}/volume-images/nbd`)
  await client.write(4096, new Uint8Array(4096).fill(7))
  await client.flush()
  assert.deepEqual([...(await client.read(4095, 2))], [0, 7])
  const { output: status } = await container.exec('cat', '/proc/1/status')
  const told = (key: string) => new RegExp(`^${key}:\\s+(.*)$`, 'm').exec(status)?.[1]
  const identity = ['Pid', 'Uid', 'CapEff', 'CapBnd', 'NoNewPrivs', 'Seccomp'].map(told)
  assert.deepEqual(identity, ['1', '1000\t1000\t1000\t1000', NOTHING, NOTHING, '1', '2'])
  assert.match((await container.exec('touch', '/opt/candor/x')).output, /Read-only file system/)
  const [kind, ...check] = image.config.Healthcheck.Test
  assert.equal(kind, 'CMD')
  const health = await container.exec(...check)
  assert.equal(health.code, 0)
  assert.match(health.output, /^disk\.img +ok /m)
  const elsewhere = await container.exec(...check, '--state-dir', '/tmp')
  assert.notEqual(elsewhere.code, 0, 'a server that does not answer is told')
  await client.write(0, new Uint8Array(512).fill(9))
  container.kill('SIGTERM')
  assert.deepEqual(await container.ended, [0, null])
  const bytes = readFileSync(join(folder, 'volume-images/disk.img'))
  assert.deepEqual([bytes[0], bytes[4096], bytes.length], [9, 7, 8 << 20])
}

async function takesRing(t: TestContext, image: ContainerImage): Promise<void> {
  const { path: folder, remove } = temporaryFolder()
  const container = startContainer(t, image, folder, { args: SERVE, ioUring: 'allowed' })
  t.after(remove)
  await Promise.all([container.until(/^ready/m), container.until(/"msg":"reads wait for storage by/)])
  assert.match(container.output(), /"msg":"reads wait for storage by uring"/)
  container.kill('SIGINT')
  assert.deepEqual(await container.ended, [0, null])
}

interface Composed {
  readonly command: string[]
  readonly entrypoint: string[]
}

/** What Compose would start, on volumes that are made here; the disk of the images is too small for the image. */
async function sidecar(t: TestContext, image: ContainerImage): Promise<void> {
  const { path: folder, remove } = temporaryFolder()
  const compose = parse(readFileSync(join(DEPLOY, 'compose.yaml'), 'utf8')) as { services: Record<string, Composed> }
  const { candor, client } = compose.services
  assert.ok(candor !== undefined && client !== undefined)
  const [config, socket, images] = ['config', 'socket', 'volume-images'].map((name) => join(folder, name))
  for (const path of [config, socket, images]) mkdirSync(path ?? '')
  copyFileSync(join(DEPLOY, 'candor.yaml'), join(config ?? '', 'candor.yaml'))
  chownSync(socket ?? '', 1000, 1000)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16M,uid=1000,gid=1000,mode=0700', 'candor-test', images ?? ''])
  const binds = { '/run/candor': socket ?? '', '/etc/candor': config ?? '' }
  const server = startContainer(t, image, folder, { args: candor.command, ioUring: 'refused', binds })
  t.after(() => execFileSync('umount', ['--lazy', images ?? '']))
  t.after(remove)
  await server.until(/^ready/m)
  const asked = startContainer(t, image, folder, { args: [], entrypoint: client.entrypoint, ioUring: 'refused', binds })
  await asked.until(/10 GiB/)
  const guest = await attach(`nbd+unix:///disk1?socket=${socket}/nbd`)
  const held = guest.write(0, new Uint8Array(24 << 20).fill(3))
  const answered = held.then(
    () => true,
    () => true,
  )
  const isHeld = async () =>
    / 1 writes held for want of space/.test((await server.exec('candor', 'ctl', 'exports')).output)
  while (!(await isHeld())) assert.ok(!(await Promise.race([answered, nextTurn(false)])), 'the write was answered')
  assert.deepEqual([...(await guest.read(64 << 20, 2))], [0, 0])
  execFileSync('mount', ['-o', 'remount,size=64M', images ?? ''])
  await held
  await guest.flush()
  assert.deepEqual([...(await guest.read((24 << 20) - 1, 2))], [3, 0])
  await guest.disconnect()
  server.kill('SIGTERM')
  assert.deepEqual(await server.ended, [0, null])
}
