// Serves one image to one guest. Law: the image may be judged after stop(), which demands a clean end.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { startCandor } from './candor.js'
import { scratchFolder, type TestScope } from './guest-images.js'

const EXPORT_NAME = 'disk'
/** What user networking calls the host's loopback. */
const HOST_IN_GUEST = '10.0.2.2'

export interface ServedImage {
  readonly path: string
  /** For nbd-client inside a guest; of use only with an image served over TCP. */
  readonly nbdClientArguments: string
  /** The value of `file=` in QEMU's -drive. */
  readonly qemuFile: string
  stop(): Promise<void>
}

export async function serveImage(
  scope: TestScope,
  options: { readonly sizeMiB: number; readonly over: 'tcp' | 'unix'; readonly flags?: readonly string[] },
): Promise<ServedImage> {
  const folder = scratchFolder(scope)
  const path = join(folder, 'disk.img')
  const server = await startServer(scope, folder, path, options)
  const address = options.over === 'unix' ? `unix:${server.socket}` : `127.0.0.1:${server.port}`
  return {
    path,
    nbdClientArguments: `${HOST_IN_GUEST} ${server.port} -N ${EXPORT_NAME}`,
    qemuFile: `nbd:${address}:exportname=${EXPORT_NAME}`,
    stop: () => server.stop(),
  }
}

interface Server {
  readonly port: number
  readonly socket: string
  stop(): Promise<void>
}

async function startServer(
  scope: TestScope,
  folder: string,
  path: string,
  { sizeMiB, flags = [] }: { readonly sizeMiB: number; readonly flags?: readonly string[] },
): Promise<Server> {
  const socket = join(folder, 'nbd.sock')
  const listen = ['--listen', 'tcp:127.0.0.1:0', '--listen', `unix:${socket}`, '--http', 'off']
  const state = ['--state-dir', join(folder, 'state'), ...flags]
  const candor = await startCandor(['serve', `${EXPORT_NAME}=${path}`, '--create', `${sizeMiB}M`, ...listen, ...state])
  scope.after(() => candor.stop())
  const port = Number(
    candor.uris.map((uri) => /^nbd:\/\/[^/]*:(\d+)/.exec(uri)?.[1]).find((found) => found !== undefined),
  )
  return {
    port,
    socket,
    stop: async () => {
      const { code, stderr } = await candor.stop()
      assert.equal(code, 0, stderr)
    },
  }
}
