// The operator's door: a Unix socket in the state directory, for its owner alone. One JSON line asks, one answers.

import { existsSync, unlinkSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { DONE, errnoName, errnoOf, OpenError } from '../../backends/index.js'
import type { Export } from '../exports/export.js'
import type { ExportRegistry } from '../exports/registry.js'
import type { Log } from '../observe/log.js'
import { parseRule } from '../values.js'

/** Longest question; nobody honest comes near it. */
const LINE_BYTES_MAX = 64 << 10
const SOCKET_UMASK = 0o177
/** sun_path of unix(7), its closing NUL left off. */
const UNIX_PATH_BYTES_MAX = 107

export interface ControlRequest {
  readonly command: string
  readonly name?: string
  /** Further arguments, such as injection rules. */
  readonly words?: readonly string[]
}

/** `error` is a sentence for the operator. */
export type ControlReply =
  | { readonly ok: true; readonly result: unknown }
  | { readonly ok: false; readonly error: string }

export function controlSocketPath(stateDirectory: string): string {
  return join(stateDirectory, 'control')
}

/** What `candor ctl exports` shows of one. */
export interface ExportSummary {
  readonly name: string
  readonly size: number
  readonly readOnly: boolean
  readonly state: string
  readonly suspectBytes: number
  readonly suspectRanges: number
  /** Requests that wait for space, and since when. */
  readonly held: number
  readonly heldSince: string | undefined
}

function summary(entry: Export): ExportSummary {
  const { suspect, state } = entry.durability
  const { name, size, readOnly } = entry
  const { held, since } = entry.space
  const heldSince = since === undefined ? undefined : new Date(since).toISOString()
  return { name, size, readOnly, state, suspectBytes: suspect.bytes, suspectRanges: suspect.count, held, heldSince }
}

function failed(error: string): ControlReply {
  return { ok: false, error }
}

async function resume(entry: Export): Promise<ControlReply> {
  entry.inspect()
  const outcome = await entry.durability.resume()
  if (outcome === DONE) return { ok: true, result: summary(entry) }
  const errno = errnoName(errnoOf(outcome))
  return failed(`export ${entry.name} is still ${entry.state}: its sync fails with ${errno}; mend the storage first`)
}

async function forget(entry: Export): Promise<ControlReply> {
  const outcome = await entry.durability.forget()
  return outcome === DONE
    ? { ok: true, result: summary(entry) }
    : failed(`the record of ${entry.name} cannot be written`)
}

/** Tries what is held for want of space again, or answers it with ENOSPC. */
function hold(act: 'release' | 'fail'): (entry: Export) => Promise<ControlReply> {
  return async (entry) => {
    entry.space[act]()
    return { ok: true, result: summary(entry) }
  }
}

function inject(log: Log): (entry: Export, words: readonly string[]) => Promise<ControlReply> {
  return async (entry, words) => {
    try {
      const rules = words.filter((word) => word !== 'off').map(parseRule)
      entry.inject(rules)
      const texts = rules.map(({ text }) => text)
      log.warn(
        { export: entry.name, rules: texts },
        texts.length > 0 ? 'FAULT INJECTION is on' : 'fault injection is off',
      )
      return { ok: true, result: summary(entry) }
    } catch (error) {
      return failed((error as Error).message)
    }
  }
}

type Act = (entry: Export, words: readonly string[]) => Promise<ControlReply>

function actions(log: Log): Readonly<Record<string, Act>> {
  return {
    resume,
    forget,
    inject: inject(log),
    'hold-release': hold('release'),
    'hold-fail': hold('fail'),
  }
}

/** Answers one question. */
export async function answerControl(
  registry: ExportRegistry,
  log: Log,
  request: ControlRequest,
): Promise<ControlReply> {
  const { command, name, words = [] } = request
  if (command === 'exports') return { ok: true, result: [...registry].map(summary) }
  const act = actions(log)[command]
  if (act === undefined) return failed(`this server knows no command '${command}'`)
  const entry = name === undefined ? undefined : registry.find(name)
  return entry === undefined
    ? failed(`there is no export '${name}': 'candor ctl exports' lists them`)
    : act(entry, words)
}

function parse(line: string): ControlRequest | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null && 'command' in value ? (value as ControlRequest) : undefined
  } catch {
    return undefined
  }
}

function serve(socket: Socket, registry: ExportRegistry, log: Log): void {
  let text = ''
  socket.setEncoding('utf8')
  socket.on('error', () => socket.destroy())
  socket.on('data', (chunk: string) => {
    text += chunk
    if (text.length > LINE_BYTES_MAX) socket.destroy()
    const end = text.indexOf('\n')
    if (end === -1) return
    const request = parse(text.slice(0, end))
    const reply = request === undefined ? failed('that is no question') : answerControl(registry, log, request)
    Promise.resolve(reply).then((answer) => socket.end(`${JSON.stringify(answer)}\n`))
  })
}

/** Listens in the state directory, which is locked: a socket that lies there is a dead predecessor's. */
export async function openControl(stateDirectory: string, registry: ExportRegistry, log: Log): Promise<Server> {
  const path = controlSocketPath(stateDirectory)
  if (Buffer.byteLength(path) > UNIX_PATH_BYTES_MAX) {
    throw new OpenError(`the control socket ${path} would have too long a path: choose a shorter --state-dir`)
  }
  if (existsSync(path)) unlinkSync(path)
  const server = createServer((socket) => serve(socket, registry, log))
  const listening = new Promise<void>((resolve, reject) => {
    server.once('listening', resolve).once('error', reject)
  })
  // bind(2) happens within this call, so the socket never exists with wider permissions.
  const umask = process.umask(SOCKET_UMASK)
  server.listen(path)
  process.umask(umask)
  await listening
  return server
}
