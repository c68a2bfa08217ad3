// The container image, built by buildah from the project's own Dockerfile. Law: nothing is pulled. A Debian 12 made by debootstrap
// with the Node that runs the tests stands in for the public images node:VERSION-bookworm and -bookworm-slim; both are kept in .cache.
import { execFileSync } from 'node:child_process'
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const CACHE = join(root, '.cache/container')
const STORAGE = ['--root', join(CACHE, 'storage'), '--runroot', join(CACHE, 'run')]
const DEBIAN = join(CACHE, 'debian-12')
const NODE = `${Number.parseInt(process.versions.node, 10)}`
const SLIM = `docker.io/library/node:${NODE}-bookworm-slim`
const WHOLE = `docker.io/library/node:${NODE}-bookworm`
const IMAGE = `localhost/candor-of-${process.pid}`
const TOOLCHAIN = 'apt-get update -qq && apt-get install -y -qq --no-install-recommends make g++ python3'

export interface ImageConfig {
  readonly User: string
  readonly Env: readonly string[]
  readonly Entrypoint: readonly string[]
  readonly Cmd: readonly string[]
  readonly WorkingDir: string
  readonly StopSignal: string
  readonly Labels: Readonly<Record<string, string>>
  readonly Volumes: Readonly<Record<string, unknown>>
  readonly Healthcheck: { readonly Test: readonly string[] }
}

export interface ContainerImage {
  readonly config: ImageConfig
  /** Where its root file system is mounted. */
  readonly rootfs: string
  /** Bytes of the layers above the base. */
  readonly ownBytes: number
}

function run(program: string, args: readonly string[]): string {
  return execFileSync(program, args, {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    maxBuffer: 64 << 20,
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  }).trim()
}

const buildah = (...args: readonly string[]): string => run('buildah', [...STORAGE, ...args])

function has(image: string): boolean {
  return buildah('images', '--format', '{{.Name}}:{{.Tag}}').split('\n').includes(image)
}

/** Node and npm where the public image has them. */
function addNode(rootfs: string): void {
  const prefix = dirname(dirname(process.execPath))
  const local = join(rootfs, 'usr/local')
  for (const folder of ['bin', 'include', 'lib/node_modules']) mkdirSync(join(local, folder), { recursive: true })
  copyFileSync(process.execPath, join(local, 'bin/node'))
  const keep = { recursive: true, verbatimSymlinks: true }
  cpSync(join(prefix, 'include/node'), join(local, 'include/node'), keep)
  // Not from beside this Node: one that npm installed has none.
  const npm = dirname(dirname(realpathSync(run('sh', ['-c', 'command -v npm']))))
  cpSync(npm, join(local, 'lib/node_modules/npm'), keep)
  for (const name of ['npm', 'npx']) symlinkSync(`../lib/node_modules/npm/bin/${name}-cli.js`, join(local, 'bin', name))
}

function makeBases(): void {
  if (has(SLIM) && has(WHOLE)) return
  mkdirSync(CACHE, { recursive: true })
  if (!existsSync(DEBIAN)) {
    const made = `${DEBIAN}.made`
    rmSync(made, { recursive: true, force: true })
    // libatomic1: what Node 26 wants besides what 20 and 24 do.
    run('debootstrap', ['--variant=minbase', '--include=libatomic1', 'bookworm', made])
    renameSync(made, DEBIAN)
  }
  const container = buildah('from', 'scratch')
  try {
    const rootfs = buildah('mount', container)
    run('cp', ['-a', `${DEBIAN}/.`, rootfs])
    addNode(rootfs)
    run('chroot', [rootfs, 'useradd', '--uid', '1000', '--create-home', 'node'])
    buildah('commit', '--quiet', container, SLIM)
    buildah('run', '--isolation', 'chroot', container, '--', 'sh', '-c', TOOLCHAIN)
    buildah('commit', '--quiet', container, WHOLE)
  } finally {
    buildah('rm', container)
  }
}

/** A certificate authority that this machine's npm needs is mounted for the build alone. */
function authority(): string[] {
  const path = process.env['NODE_EXTRA_CA_CERTS']
  if (path === undefined) return []
  return ['--volume', `${path}:/run/authority.pem:ro`, '--build-arg', 'NODE_EXTRA_CA_CERTS=/run/authority.pem']
}

function sizeOf(image: string): number {
  const { Manifest } = JSON.parse(buildah('inspect', '--type', 'image', image)) as { Manifest: string }
  const { layers } = JSON.parse(Manifest) as { layers: readonly { readonly size: number }[] }
  return layers.slice(1).reduce((sum, { size }) => sum + size, 0)
}

/** Builds the image and mounts it until the test ends; of the build nothing stays but the stand-ins. */
export function containerImage(scope: TestContext): ContainerImage {
  makeBases()
  // With the image go the containers made of it.
  scope.after(() => {
    buildah('rmi', '--force', IMAGE)
    buildah('rmi', '--prune', '--force')
  })
  const how = ['--isolation', 'chroot', '--network', 'host', '--format', 'docker', '--pull-never']
  const words = ['--build-arg', `NODE=${NODE}`, '--build-arg', 'REVISION=tested']
  buildah('build', ...how, ...authority(), ...words, '--tag', IMAGE, '.')
  const container = buildah('from', '--pull-never', IMAGE)
  const rootfs = buildah('mount', container)
  const { Docker } = JSON.parse(buildah('inspect', '--type', 'image', IMAGE)) as { Docker: { config: ImageConfig } }
  return { config: Docker.config, rootfs, ownBytes: sizeOf(IMAGE) }
}

/** The version that package.json tells. */
export function packageVersion(): string {
  return (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }).version
}
