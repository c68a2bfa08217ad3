// One question to a running server, through the socket in its state directory.
import { once } from 'node:events'
import { connect } from 'node:net'
import { controlSocketPath } from '../control/control-server.js'
import type { ControlReply, ControlRequest } from '../control/export-actions.js'
import { UsageError } from '../values.js'

/** undefined: no server answers there. @throws UsageError when it ends before it has answered */
export async function askServer(stateDirectory: string, request: ControlRequest): Promise<ControlReply | undefined> {
  const socket = connect(controlSocketPath(stateDirectory))
  const chunks: string[] = []
  socket.setEncoding('utf8').on('data', (chunk: string) => chunks.push(chunk))
  try {
    await once(socket, 'connect')
  } catch {
    return undefined
  }
  socket.write(`${JSON.stringify(request)}\n`)
  await once(socket, 'close')
  if (chunks.length === 0) throw new UsageError('the server ended before it answered')
  return JSON.parse(chunks.join('')) as ControlReply
}
