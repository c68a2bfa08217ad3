// The process that leaves, as the one that takes over sees it. Law: nothing is served before it has let go: it said so, or
// it is dead, with everything handed over.
import { closeSync, fstatSync, readSync } from 'node:fs'
import { OpenError } from '../../backends/index.js'
import { VERSION } from '../version.js'
import { Channel } from './channel.js'
import {
  HAND_OVER_FORMAT,
  type LateGuest,
  type MovedServer,
  type ToPredecessor,
  type ToSuccessor,
  UPGRADE_VARIABLE,
} from './messages.js'
import { unpack } from './packing.js'

const DIED = 'the process that was to be taken over has ended: start anew'
const SHORT =
  'the new process may not open as many files as are handed over: raise the limit of open files (LimitNOFILE=, ulimit -Hn)'

type Told<Kind extends ToSuccessor['kind']> = Extract<ToSuccessor, { readonly kind: Kind }>

export class Predecessor {
  readonly #channel: Channel<ToSuccessor, ToPredecessor>

  constructor(fd: number) {
    this.#channel = new Channel(fd)
  }

  /** The one whose place this process is to take, if it was started for that. */
  static ofEnvironment(): Predecessor | undefined {
    const fd = process.env[UPGRADE_VARIABLE]
    delete process.env[UPGRADE_VARIABLE]
    return fd !== undefined && /^\d+$/.test(fd) ? new Predecessor(Number(fd)) : undefined
  }

  /** Why no more is heard. */
  get #end(): OpenError {
    return new OpenError(this.#channel.isShort ? SHORT : DIED)
  }

  async #expect<Kind extends ToSuccessor['kind']>(kind: Kind): Promise<Told<Kind>> {
    const message = await this.#channel.next()
    if (message === undefined) throw this.#end
    if (message.kind !== kind) throw new TypeError(`'${message.kind}' was said out of turn`)
    return message as Told<Kind>
  }

  /** This process goes no further. */
  refuse(sentence: string): void {
    this.#channel.mention({ kind: 'refused', sentence })
  }

  /** Introduces this process; returns the exports for which threads are to be started. @throws OpenError */
  async introduce(): Promise<Told<'prepare'>['exports']> {
    this.#channel.mention({ kind: 'hello', format: HAND_OVER_FORMAT, version: VERSION })
    return (await this.#expect('prepare')).exports
  }

  /** Asks for everything. @throws OpenError */
  async receive(): Promise<MovedServer> {
    this.#channel.mention({ kind: 'prepared' })
    const [file, ...descriptors] = await this.#descriptors()
    if (file === undefined) throw new TypeError('a state came without its descriptors')
    const bytes = Buffer.alloc(fstatSync(file).size)
    for (let at = 0; at < bytes.length; ) at += readSync(file, bytes, at, bytes.length - at, at)
    closeSync(file)
    return unpack(bytes, descriptors) as MovedServer
  }

  async #descriptors(): Promise<number[]> {
    const descriptors: number[] = []
    for (;;) {
      const message = await this.#channel.next()
      if (message === undefined) throw this.#end
      if (message.kind === 'state') return descriptors
      if (message.kind !== 'descriptors') throw new TypeError(`'${message.kind}' was said out of turn`)
      descriptors.push(...this.#channel.takeDescriptors(message.count))
    }
  }

  /**
   * Everything is taken up: resolves when it may be served. False when the other one died meanwhile: it kills this process
   * before it goes on itself, so that what it handed over is nobody else's.
   */
  async mayServe(): Promise<boolean> {
    this.#channel.mention({ kind: 'ready' })
    const message = await this.#channel.next()
    if (message !== undefined && message.kind !== 'commit')
      throw new TypeError(`'${message.kind}' was said out of turn`)
    this.#channel.mention({ kind: 'serving' })
    return message !== undefined
  }

  /**
   * Resolves when those who watch over the service know of this process, with a way to tell one that stays of the next;
   * undefined where none does.
   */
  hear(welcome: (guest: LateGuest) => void): Promise<Channel<ToSuccessor, ToPredecessor> | undefined> {
    return new Promise((announced) => {
      this.#channel.onEnd = () => {
        this.#channel.close()
        announced(undefined)
      }
      this.#channel.hear((message) => {
        if (message.kind === 'announced') announced(message.stays ? this.#channel : undefined)
        if (message.kind !== 'late') return
        const [fd = -1] = this.#channel.takeDescriptors(1)
        welcome({ ...message.guest, leftover: Buffer.from(message.leftover, 'base64'), fd })
      })
      if (this.#channel.ended) this.#channel.onEnd()
    })
  }
}
