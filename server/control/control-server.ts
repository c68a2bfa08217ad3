// The operator's door: a Unix socket in the state directory, for its owner alone. One JSON line asks, one answers.

import { once } from 'node:events'
import { existsSync, rmSync, unlinkSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { OpenError } from '../../backends/index.js'
import { listenPrivately } from '../nbd/listen.js'
import { type ControlReply, type ControlRequest, failed } from './export-actions.js'

/** Longest question; nobody honest comes near it. */
const LINE_BYTES_MAX = 64 << 10
/** sun_path of unix(7), its closing NUL left off. */
const UNIX_PATH_BYTES_MAX = 107

export function controlSocketPath(stateDirectory: string): string {
  return join(stateDirectory, 'control')
}

function parse(line: string): ControlRequest | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null && 'command' in value ? (value as ControlRequest) : undefined
  } catch {
    return undefined
  }
}

/** Who answers. */
export type Answer = (request: ControlRequest) => Promise<ControlReply>

function serve(socket: Socket, answer: Answer): void {
  let text = ''
  socket.setEncoding('utf8')
  socket.on('error', () => socket.destroy())
  socket.on('data', (chunk: string) => {
    text += chunk
    if (text.length > LINE_BYTES_MAX) socket.destroy()
    const end = text.indexOf('\n')
    if (end === -1) return
    const request = parse(text.slice(0, end))
    const reply = request === undefined ? failed('that is no question') : answer(request)
    Promise.resolve(reply).then((told) => socket.end(`${JSON.stringify(told)}\n`))
  })
}

/** The operator's door, open. */
export interface ControlDoor {
  readonly fd: number
  /** Another process listens on the same socket: what was asked here is answered, and then all is settled. */
  leave(): Promise<void>
  close(): void
}

/** Listens in the state directory, which is locked: a socket that lies there is a dead predecessor's. @throws OpenError */
export async function openControl(stateDirectory: string, answer: Answer, moved?: number): Promise<ControlDoor> {
  const path = controlSocketPath(stateDirectory)
  if (Buffer.byteLength(path) > UNIX_PATH_BYTES_MAX) {
    throw new OpenError(`the control socket ${path} would have too long a path: choose a shorter --state-dir`)
  }
  if (moved === undefined && existsSync(path)) unlinkSync(path)
  const fd = moved ?? listenPrivately({ kind: 'unix', path })
  const server = createServer((socket) => serve(socket, answer))
  server.listen({ fd })
  await once(server, 'listening')
  // A connection that could not be accepted, for want of descriptors: whoever asked sees it closed.
  server.on('error', () => {})
  const leave = () => new Promise<void>((resolve) => server.close(() => resolve()))
  const close = () => {
    server.close()
    try {
      rmSync(path, { force: true })
    } catch {
      // A state directory that cannot be written any more: what lies there is a dead server's, and the next one takes it away.
    }
  }
  return { fd, leave, close }
}
