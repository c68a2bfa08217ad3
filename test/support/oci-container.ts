// Runs a container image as container platforms do: runc, a process namespace of its own, an ordinary user without
// capabilities, a read-only root file system, and a seccomp profile that refuses io_uring, as Docker's does.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { ContainerImage } from './container-image.js'

const EPERM = 1
const NAMESPACES = ['pid', 'ipc', 'uts', 'mount'].map((type) => ({ type }))
const NOTHING = { bounding: [], effective: [], inheritable: [], permitted: [], ambient: [] }
const IO_URING = ['io_uring_setup', 'io_uring_enter', 'io_uring_register']

export interface ContainerOptions {
  /** In place of the image's CMD. */
  readonly args: readonly string[]
  readonly ioUring: 'refused' | 'allowed'
  /** In place of its ENTRYPOINT. */
  readonly entrypoint?: readonly string[]
  /** Besides the image's own volumes: destination, and what of the host lies there. */
  readonly binds?: Readonly<Record<string, string>>
}

export interface RunningContainer {
  /** What the container's process printed. */
  output(): string
  /** Waits until it printed so. */
  until(pattern: RegExp): Promise<void>
  /** Runs a command inside; its exit code and what it printed. */
  exec(...words: readonly string[]): Promise<{ readonly code: number | null; readonly output: string }>
  /** To the first process of the container. */
  kill(signal: string): void
  readonly ended: Promise<unknown>
}

let containers = 0

/** `folder` gets the image's volumes: `volume-images`, `volume-var-lib-candor`. */
export function startContainer(
  scope: TestContext,
  image: ContainerImage,
  folder: string,
  options: ContainerOptions,
): RunningContainer {
  containers += 1
  const name = `candor-${process.pid}-${containers}`
  const bundle = join(folder, name)
  mkdirSync(bundle)
  writeFileSync(join(bundle, 'config.json'), JSON.stringify(specification(image, folder, options)))
  const runc = ['--root', join(folder, 'runc')]
  const child = spawn('runc', [...runc, 'run', '--bundle', bundle, name], { stdio: ['ignore', 'pipe', 'pipe'] })
  scope.after(() => spawnSync('runc', [...runc, 'delete', '--force', name]))
  const heard = listen(child)
  const ended = once(child, 'close')
  return {
    output: heard.output,
    until: async (pattern) => {
      const gone = ended.then(() => {
        if (!pattern.test(heard.output())) throw new Error(`the container ended:\n${heard.output()}`)
      })
      while (!pattern.test(heard.output())) await Promise.race([heard.more(), gone])
    },
    exec: async (...words) => {
      const command = spawn('runc', [...runc, 'exec', name, ...words], { stdio: ['ignore', 'pipe', 'pipe'] })
      const { output } = listen(command)
      const [code] = (await once(command, 'close')) as [number | null]
      return { code, output: output() }
    },
    kill: (signal) => execFileSync('runc', [...runc, 'kill', name, signal]),
    ended,
  }
}

function listen(child: ChildProcess): { output(): string; more(): Promise<unknown> } {
  let text = ''
  const waiting: (() => void)[] = []
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
      for (const wake of waiting.splice(0)) wake()
    })
  }
  return {
    output: () => text,
    more: () => new Promise<void>((resolve) => waiting.push(resolve)),
  }
}

const bind = (destination: string, source: string) => ({
  destination,
  type: 'bind',
  source,
  options: ['rbind', 'rw'],
})

function specification(image: ContainerImage, folder: string, options: ContainerOptions): object {
  const { args, ioUring, binds = {} } = options
  const { User, Env, Entrypoint, WorkingDir, Volumes } = image.config
  const [uid = 0, gid = 0] = User.split(':').map(Number)
  const volumes = Object.keys(Volumes).map((destination) => {
    const source = join(folder, `volume${destination.replaceAll('/', '-')}`)
    mkdirSync(source, { recursive: true, mode: 0o700 })
    chownSync(source, uid, gid)
    return bind(destination, source)
  })
  const more = Object.entries(binds).map(([destination, source]) => bind(destination, source))
  const refused = [{ names: IO_URING, action: 'SCMP_ACT_ERRNO', errnoRet: EPERM }]
  return {
    ociVersion: '1.0.2',
    root: { path: image.rootfs, readonly: true },
    process: {
      user: { uid, gid },
      args: [...(options.entrypoint ?? Entrypoint), ...args],
      env: Env,
      cwd: WorkingDir,
      capabilities: NOTHING,
      noNewPrivileges: true,
    },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755'] },
      ...volumes,
      ...more,
    ],
    linux: {
      namespaces: NAMESPACES,
      seccomp: { defaultAction: 'SCMP_ACT_ALLOW', syscalls: ioUring === 'refused' ? refused : [] },
    },
  }
}
