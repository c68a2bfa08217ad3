// What an operator may ask of the server as a whole: which exports there are, who is connected, what is logged. Law: what
// is refused changes nothing, and says why in a sentence.
import { OpenError } from '../../backends/index.js'
import type { Config } from '../config.js'
import { addedExport, checkExportFlag, type ExportFlags, policyOf } from '../config-added.js'
import type { FdStore } from '../fd-store.js'
import type { FrontEnds } from '../front-ends.js'
import { type DirectoryEntry, type ExportDirectory, stalledSentence } from '../io/directory.js'
import type { ExportDesk } from '../io/export-desk.js'
import type { RemovalKind } from '../io/io-host.js'
import { LOG_LEVELS, type LogOutput } from '../observe/log.js'
import { parseSize, UsageError } from '../values.js'
import { type ControlReply, type ControlRequest, failed } from './export-actions.js'
import type { ExportSummary } from './export-summary.js'

export interface OperatorOptions {
  /** The words that the server goes by now. */
  readonly config: () => Config
  readonly desk: ExportDesk
  readonly directory: ExportDirectory
  readonly frontEnds: Pick<FrontEnds, 'sessions' | 'disconnect'>
  readonly output: LogOutput
  /** Reads the configuration again. */
  readonly reload: () => Promise<ControlReply>
  readonly store?: FdStore | undefined
  /** Hands everything over to a new process. */
  readonly upgrade: (letsGuestsGo: boolean) => Promise<ControlReply>
}

type Act = (request: ControlRequest) => Promise<ControlReply>

export class Operator {
  readonly #options: OperatorOptions
  readonly #acts: Readonly<Record<string, Act>> = {
    add: (request) => this.#add(request),
    remove: (request) => this.#remove(request),
    set: (request) => this.#set(request),
    resize: (request) => this.#resize(request),
    sessions: async () => ({ ok: true, result: await this.#sessions() }),
    disconnect: (request) => this.#disconnect(request),
    release: (request) => this.#release(request),
    'log-level': (request) => this.#logLevel(request),
    reload: () => this.#options.reload(),
    upgrade: ({ flags }) => this.#options.upgrade(flags?.['force'] === true),
  }

  constructor(options: OperatorOptions) {
    this.#options = options
  }

  /** Answers one question; what is no business of the whole server goes to the export. */
  async answer(request: ControlRequest): Promise<ControlReply> {
    const act = Object.hasOwn(this.#acts, request.command) ? this.#acts[request.command] : undefined
    try {
      return await (act === undefined ? this.#options.directory.ask(request) : act(request))
    } catch (error) {
      if (error instanceof UsageError || error instanceof OpenError) return failed(error.message)
      throw error
    }
  }

  /** What is to be unmounted is held open by nobody, not even for the next server. */
  async #release(request: ControlRequest): Promise<ControlReply> {
    const reply = await this.#options.directory.ask(request)
    if (reply.ok) this.#options.store?.drop((reply.result as ExportSummary).name)
    return reply
  }

  async #sessions(): Promise<unknown> {
    return this.#options.frontEnds.sessions(await this.#options.directory.inFlight())
  }

  async #add({ name: image = '', flags }: ControlRequest): Promise<ControlReply> {
    const { desk, directory, config } = this.#options
    const wanted = addedExport(config(), image, exportFlags(flags))
    await desk.alone(() => desk.add(wanted))
    return directory.ask({ command: 'exports', name: wanted.name })
  }

  async #remove({ name = '', flags }: ControlRequest): Promise<ControlReply> {
    const { desk, directory } = this.#options
    if (desk.forgetFailed(name)) return { ok: true, result: { name, synced: true } }
    return desk.alone(async () => {
      const entry = directory.holds(name) ? directory.find(name) : undefined
      return entry === undefined
        ? failed(directory.absence(name))
        : removeFrom(desk, entry, flags?.['force'] === true ? 'force' : 'drain')
    })
  }

  async #set({ name = '', flags }: ControlRequest): Promise<ControlReply> {
    const { desk, directory } = this.#options
    const patch = policyOf(exportFlags(flags))
    return desk.alone(async () => {
      const entry = directory.holds(name) ? directory.find(name) : undefined
      return entry === undefined ? failed(directory.absence(name)) : desk.set(entry, patch)
    })
  }

  async #resize({ name = '', words = [], flags }: ControlRequest): Promise<ControlReply> {
    const { desk, directory } = this.#options
    const size = parseSize(words[0] ?? '', 'the size')
    const force = flags?.['force'] === true
    const request = { command: 'resize', name, words: [String(size)], flags: { force } }
    return desk.alone(async () => (directory.holds(name) ? directory.ask(request) : failed(directory.absence(name))))
  }

  async #disconnect({ name: id = '' }: ControlRequest): Promise<ControlReply> {
    if (this.#options.frontEnds.disconnect(Number.parseInt(id, 10))) return { ok: true, result: { id: Number(id) } }
    return failed(`there is no session ${id}: 'candor ctl sessions' lists them`)
  }

  async #logLevel({ name: word = '' }: ControlRequest): Promise<ControlReply> {
    const level = LOG_LEVELS.find((each) => each === word)
    if (level === undefined) return failed(`log-level is '${word}': write ${LOG_LEVELS.join(', ')}`)
    this.#options.output.level = level
    return { ok: true, result: { level } }
  }
}

/** @throws UsageError for words that are none of an export */
function exportFlags(flags: ControlRequest['flags'] = {}): ExportFlags {
  for (const [key, value] of Object.entries(flags)) checkExportFlag(key, value)
  return flags as ExportFlags
}

/** Takes an export out of service, and tells how that went. */
export async function removeFrom(desk: ExportDesk, entry: DirectoryEntry, how: RemovalKind): Promise<ControlReply> {
  const { name } = entry
  const removal = await desk.remove(entry, how)
  if (removal === undefined) return failed(stalledSentence(name))
  if (!removal.gone) {
    const requests = removal.unanswered === 0 ? 'its storage' : `its storage has ${removal.unanswered} requests, and`
    return failed(
      `export ${name} is leaving, and takes no new requests, but ${requests} does not answer: mend it, then ask again`,
    )
  }
  if (removal.synced) return { ok: true, result: { name, synced: true } }
  return failed(
    `export ${name} is removed, but its final sync failed: what may be lost is in its record, and 'candor errors ${name}' tells more`,
  )
}
