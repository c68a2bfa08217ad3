// Speaks QMP, QEMU's control protocol: JSON lines over a socket. Law: every command gets its own answer or an error.
import { once } from 'node:events'
import type { Server, Socket } from 'node:net'
import { createInterface } from 'node:readline'

interface Message {
  readonly id?: number
  readonly return?: unknown
  readonly error?: { readonly desc: string }
}

interface Pending {
  readonly resolve: (value: unknown) => void
  readonly reject: (error: Error) => void
}

export interface Qmp {
  execute(command: string, commandArguments?: Record<string, unknown>): Promise<unknown>
}

/** QEMU connects to us, so that there is no moment at which its socket does not exist yet. */
export async function acceptQmp(server: Server, signal: AbortSignal): Promise<Qmp> {
  const [socket] = (await once(server, 'connection', { signal })) as [Socket]
  const pending = new Map<number, Pending>()
  // A power cut resets the connection, which the line reader tells as well: its commands then fail through 'close'.
  const lines = createInterface(socket)
  for (const emitter of [socket, lines]) emitter.on('error', () => undefined)
  lines.on('line', (line) => settle(pending, JSON.parse(line) as Message))
  socket.on('close', () => {
    for (const { reject } of pending.values()) reject(new Error('QEMU is gone'))
    pending.clear()
  })
  let last = 0
  const execute = (command: string, commandArguments: Record<string, unknown> = {}): Promise<unknown> =>
    new Promise((resolve, reject) => {
      if (socket.destroyed) return reject(new Error('QEMU is gone'))
      last += 1
      pending.set(last, { resolve, reject })
      socket.write(`${JSON.stringify({ execute: command, arguments: commandArguments, id: last })}\n`)
    })
  await execute('qmp_capabilities')
  return { execute }
}

/** Events and the greeting carry no id of ours and are passed over. */
function settle(pending: Map<number, Pending>, message: Message): void {
  const waiting = message.id === undefined ? undefined : pending.get(message.id)
  if (message.id === undefined || waiting === undefined) return
  pending.delete(message.id)
  if (message.error === undefined) waiting.resolve(message.return)
  else waiting.reject(new Error(`QMP: ${message.error.desc}`))
}
