// The servers that can be measured: how each is found and with which words it is started. Peers run in the way their
// own manuals recommend for shared, persistent connections.

import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { run, tellingLine } from './command.js'
import type { Options, Peer } from './options.js'

export const EXPORT = 'bench'

export interface Place {
  readonly image: string
  readonly socket: string
  readonly stateDir: string
  /** Folder of certificates as the bench's tls.ts makes it; undefined: everything goes in the clear. */
  readonly tlsDir: string | undefined
}

export interface Server {
  readonly name: 'candor' | Peer
  readonly title: string
  readonly version: string
  /** A server that knows no block status and no WRITE_ZEROES would turn a copy of holes into something else. */
  readonly sparse: boolean
  readonly tls: boolean
  command(place: Place): readonly [file: string, ...args: string[]]
}

export interface Found {
  readonly servers: Server[]
  /** One sentence for each server that cannot take part. */
  readonly leftOut: string[]
}

export async function findServers(options: Options, dir: string): Promise<Found> {
  const found: Found = { servers: options.candor ? [candor()] : [], leftOut: [] }
  for (const peer of options.peers) {
    const server = peer === 'c-loop' ? await yardstick(dir) : await findPeer(peer, options.peerRoot, dir)
    if (typeof server === 'string') found.leftOut.push(server)
    else found.servers.push(server)
  }
  return found
}

function candor(): Server {
  const main = fileURLToPath(new URL('../server/main.js', import.meta.url))
  return {
    name: 'candor',
    title: 'candor',
    version: 'this build',
    sparse: true,
    tls: true,
    command: ({ image, socket, stateDir, tlsDir }) => {
      const flags = ['--listen', `unix:${socket}`, '--http', 'off', '--state-dir', stateDir]
      const secure = tlsDir === undefined ? [] : ['--tls', 'require', '--tls-dir', tlsDir]
      return [process.execPath, main, 'serve', `${EXPORT}=${image}`, ...flags, ...secure]
    },
  }
}

/** Returns the server, or the sentence that says why it is left out. */
async function findPeer(name: 'nbdkit' | 'qemu-nbd', root: string | undefined, dir: string): Promise<Server | string> {
  const prefix = root === undefined ? [] : ['chroot', root]
  const [file = name, ...args] = [...prefix, name, '--version']
  const asked = await run(file, args, dir)
  if (!asked.ok) return `${name} is not installed${root === undefined ? '' : ` in ${root}`}: left out`
  const version = /\d+(\.\d+)+/.exec(asked.stdout)?.[0] ?? 'of unknown version'
  const seen = (path: string) => (root === undefined ? path : path.slice(root.length))
  const commands = {
    nbdkit: ({ image, socket, tlsDir }: Place) => {
      const secure = tlsDir === undefined ? [] : ['--tls=require', `--tls-certificates=${seen(tlsDir)}`]
      return ['-f', '-U', seen(socket), '-e', EXPORT, ...secure, 'file', seen(image)]
    },
    'qemu-nbd': ({ image, socket, tlsDir }: Place) => {
      const credentials = (dir: string) => `tls-creds-x509,id=t,dir=${dir},endpoint=server,verify-peer=off`
      const secure = tlsDir === undefined ? [] : ['--object', credentials(seen(tlsDir)), '--tls-creds', 't']
      const flags = `-f raw -t -e 16 --cache=writeback --aio=threads -x ${EXPORT} -k`.split(' ')
      return [...secure, ...flags, seen(socket), seen(image)]
    },
  }
  return {
    name,
    title: name,
    version,
    sparse: true,
    tls: true,
    command: (place) => {
      const [first = name, ...rest] = [...prefix, name, ...commands[name](place)]
      return [first, ...rest]
    },
  }
}

/** yardstick.c, compiled into `dir`: what one thread can do at most when it does nothing else. */
async function yardstick(dir: string): Promise<Server | string> {
  // The compiler leaves C where it is: the source lies beside bench/*.ts, two folders above dist/bench.
  const source = fileURLToPath(new URL('../../bench/yardstick.c', import.meta.url))
  const binary = join(dir, 'yardstick')
  const compiled = await run('cc', ['-O2', '-o', binary, source], dir, 60_000)
  if (compiled.missing) return 'there is no cc for bench/yardstick.c: the C loop is left out'
  if (!compiled.ok) return `bench/yardstick.c does not compile, the C loop is left out: ${tellingLine(compiled.stderr)}`
  const version = (await run('cc', ['-dumpfullversion'], dir)).stdout.trim()
  return {
    name: 'c-loop',
    title: 'C loop',
    version: `cc ${version}`,
    sparse: false,
    tls: false,
    command: ({ image, socket }) => [binary, image, socket],
  }
}
