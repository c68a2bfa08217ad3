// The operator's door: a Unix socket in the state directory, for its owner alone. One JSON line asks, one answers.

import { existsSync, unlinkSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { OpenError } from '../../backends/index.js'
import { type ControlReply, type ControlRequest, failed } from './export-actions.js'

/** Longest question; nobody honest comes near it. */
const LINE_BYTES_MAX = 64 << 10
const SOCKET_UMASK = 0o177
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

/** Listens in the state directory, which is locked: a socket that lies there is a dead predecessor's. */
export async function openControl(stateDirectory: string, answer: Answer): Promise<Server> {
  const path = controlSocketPath(stateDirectory)
  if (Buffer.byteLength(path) > UNIX_PATH_BYTES_MAX) {
    throw new OpenError(`the control socket ${path} would have too long a path: choose a shorter --state-dir`)
  }
  if (existsSync(path)) unlinkSync(path)
  const server = createServer((socket) => serve(socket, answer))
  const listening = new Promise<void>((resolve, reject) => {
    server.once('listening', resolve).once('error', reject)
  })
  // bind(2) happens within this call, so the socket never exists with wider permissions.
  const umask = process.umask(SOCKET_UMASK)
  server.listen(path)
  process.umask(umask)
  await listening
  // A connection that could not be accepted, for want of descriptors: whoever asked sees it closed.
  server.on('error', () => {})
  return server
}
