// Which guests are attached to the exports of this thread. Law: one guest at a time may write an export by vhost-user, and a
// new session's rings wait until storage has let go of the memory of those before it.
import { closeSync } from 'node:fs'
import { hungUp, UnusableDescriptor } from '../../backends/index.js'
import type { Export } from '../exports/export.js'
import type { Log } from '../observe/log.js'
import { VhostUserConnection, type VhostUserOptions } from './connection.js'

export interface AttachOptions extends Omit<VhostUserOptions, 'served' | 'before' | 'onRefused' | 'onEnd'> {
  /** undefined: there is no such export. */
  readonly served: Export | undefined
  readonly log: Log
  readonly onEnd: () => void
}

interface Attached {
  readonly connection: VhostUserConnection
  readonly served: Export
  readonly fd: number
}

export class VhostUserSessions {
  readonly #attached = new Set<Attached>()
  /** By the export, when the guest memory of all its ended sessions is not touched any more. */
  readonly #settled = new WeakMap<Export, Promise<unknown>>()

  /** undefined when it was refused, and has ended already. */
  attach(options: AttachOptions): VhostUserConnection | undefined {
    const { served, onFault } = options
    if (served === undefined) return refuse(options)
    this.#endDead(served)
    if (!served.readOnly && this.#guestOf(served) !== undefined) {
      const detail = 'another guest is attached to this export and may write it'
      onFault({ phase: 'handshake', reason: 'export-refused', isProtocolError: false, detail })
      return refuse(options)
    }
    try {
      return this.#connect(options, served)
    } catch (error) {
      if (!(error instanceof UnusableDescriptor)) throw error
      onFault({ phase: 'handshake', reason: 'other', isProtocolError: false, detail: error.message })
      return refuse(options)
    }
  }

  #connect(options: AttachOptions, served: Export): VhostUserConnection {
    const connection = new VhostUserConnection({
      ...options,
      served,
      onRefused: (reason) => options.log.guestRefused(served.name, reason),
      before: this.#settled.get(served) ?? Promise.resolve(),
      onEnd: (settled) => {
        this.#attached.delete(attached)
        const all = Promise.all([this.#settled.get(served), settled])
        // Not `all` itself, which resolves with what came before, and that with what came before it.
        this.#settled.set(
          served,
          all.then(() => undefined),
        )
        options.onEnd()
      },
    })
    const attached = { connection, served, fd: options.fd }
    this.#attached.add(attached)
    return connection
  }

  #guestOf(served: Export): Attached | undefined {
    return [...this.#attached].find((each) => each.served === served)
  }

  /** A front-end that has gone and come again may be here before its end was noticed. */
  #endDead(served: Export): void {
    for (const each of [...this.#attached])
      if (each.served === served && hungUp(each.fd) !== 0) each.connection.destroy()
  }

  resized(exportName: string): void {
    for (const { connection, served } of this.#attached) if (served.name === exportName) connection.resized()
  }
}

function refuse({ fd, onEnd }: Pick<AttachOptions, 'fd' | 'onEnd'>): undefined {
  closeSync(fd)
  onEnd()
}
