// The main thread's door to an I/O thread. Law: every call is answered once or fails; a thread that dies takes the
// process with it, since nobody knows what it had promised.
import { Worker } from 'node:worker_threads'
import { OpenError, type OpenedImage, reopenImage } from '../../backends/index.js'
import type { ExportConfig } from '../config.js'
import type { ControlReply, ControlRequest } from '../control/export-actions.js'
import type { MovedExport } from '../exports/open-export.js'
import type { FdStore } from '../fd-store.js'
import type { Limits } from '../limits.js'
import type { MovedConnection } from '../nbd/moved.js'
import { heldUnder } from '../nbd/payload-budget.js'
import type { BackingShare } from '../observe/backing-block.js'
import { pulseBlock } from '../observe/counters.js'
import type { Log } from '../observe/log.js'
import type { FrozenHost } from './freezing.js'
import { standOutOfTheCircle } from './io-flusher.js'
import type { AttachOrder, ExportFace, HostEvents, IoHost, Removal, RemovalKind, VhostUserOrder } from './io-host.js'
import type { Call, FromThread, IoThreadData, ToThread } from './io-messages.js'

export interface ThreadedHostOptions {
  readonly limits: Limits
  readonly stateDirectory: string | undefined
  readonly log: Log
  readonly events: HostEvents
  readonly store?: FdStore | undefined
}

type ReopenOrder = Extract<FromThread, { readonly kind: 'reopen' }>

interface Caller {
  readonly settle: (value: unknown) => void
  readonly refuse: (error: OpenError) => void
}

export class ThreadedHost implements IoHost {
  readonly pulse = pulseBlock()
  readonly #worker: Worker
  readonly #log: Log
  readonly #events: HostEvents
  readonly #store: FdStore | undefined
  readonly #callers = new Map<number, Caller>()
  #calls = 0

  constructor({ limits, stateDirectory, log, events, store }: ThreadedHostOptions) {
    this.#store = store
    this.#log = log
    this.#events = events
    standOutOfTheCircle(log)
    const workerData: IoThreadData = { limits, stateDirectory, payloadHeld: heldUnder(limits), pulse: this.pulse }
    // Images are opened in the main thread and closed there: descriptors are the process's, not the thread's.
    const options = { workerData, name: 'candor-io', trackUnmanagedFds: false }
    this.#worker = new Worker(new URL('./io-thread.js', import.meta.url), options)
    this.#worker.on('message', (message: FromThread) => this.#heard(message))
    this.#worker.on('error', (error) => {
      throw error
    })
  }

  #heard(message: FromThread): void {
    switch (message.kind) {
      case 'log':
        return this.#log.write(message.line)
      case 'faulted':
        return this.#events.connectionFaulted(message.connection, message.fault)
      case 'ended':
        return this.#events.connectionEnded(message.connection)
      case 'resized':
        return this.#events.exportResized(message.exportName, message.size)
      case 'held-anew':
        return this.#store?.keepAnew(message.exportName, message.fd)
      case 'reopen':
        return void this.#reopen(message)
      case 'answer':
        return this.#caller(message.id).settle(message.value)
      case 'refusal':
        return this.#caller(message.id).refuse(new OpenError(message.sentence))
    }
  }

  async #reopen({ id, path, readOnly }: ReopenOrder): Promise<void> {
    try {
      this.#tell({ kind: 'reopened', id, image: await reopenImage({ path, readOnly }) })
    } catch (error) {
      if (!(error instanceof OpenError)) throw error
      this.#tell({ kind: 'reopened', id, image: error.message })
    }
  }

  #caller(id: number): Caller {
    const caller = this.#callers.get(id)
    if (caller === undefined) throw new TypeError(`an I/O thread answered call ${id}, which nobody made`)
    this.#callers.delete(id)
    return caller
  }

  #tell(message: ToThread): void {
    this.#worker.postMessage(message)
  }

  #call<Answer>(call: Call): Promise<Answer> {
    return new Promise((settle, refuse) => {
      const id = this.#calls++
      this.#callers.set(id, { settle: (value) => settle(value as Answer), refuse })
      this.#tell({ kind: 'call', id, call })
    })
  }

  open(
    config: ExportConfig,
    image: OpenedImage,
    share: BackingShare | undefined,
    moved?: MovedExport,
  ): Promise<ExportFace> {
    return this.#call({ name: 'open', config, image, share, moved })
  }

  settle(timeoutMs: number): Promise<readonly string[]> {
    return this.#call({ name: 'settle', timeoutMs })
  }

  freeze(timeoutMs: number): Promise<FrozenHost> {
    return this.#call({ name: 'freeze', timeoutMs })
  }

  goOn(handedOver: readonly MovedConnection[] = []): Promise<void> {
    return this.#call({ name: 'goOn', handedOver })
  }

  async abandon(): Promise<void> {
    await this.#call({ name: 'abandon' })
    await this.#worker.terminate()
  }

  attach(order: AttachOrder): void {
    this.#tell({ kind: 'attach', order })
  }

  attachVhostUser(order: VhostUserOrder): void {
    this.#tell({ kind: 'attach-vhost-user', order })
  }

  disconnect(connection: number): void {
    this.#tell({ kind: 'disconnect', connection })
  }

  remove(exportName: string, how: RemovalKind, timeoutMs: number): Promise<Removal> {
    return this.#call({ name: 'remove', exportName, how, timeoutMs })
  }

  ask(request: ControlRequest): Promise<ControlReply> {
    return this.#call({ name: 'ask', request })
  }

  drain(): void {
    this.#tell({ kind: 'drain' })
  }

  finish(timeoutMs: number): Promise<{ unanswered: number }> {
    return this.#call({ name: 'finish', timeoutMs })
  }

  sync(): Promise<boolean> {
    return this.#call({ name: 'sync' })
  }

  async close(): Promise<void> {
    await this.#call({ name: 'close' })
    await this.#worker.terminate()
  }
}
