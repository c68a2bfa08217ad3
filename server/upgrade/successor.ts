// The process that is to take over, as the one that leaves sees it. Law: it is killed, and known to be dead, before anybody
// goes on in its place.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync } from 'node:fs'
import { socketPair } from '../../backends/index.js'
import { Channel } from './channel.js'
import { type ToPredecessor, type ToSuccessor, UPGRADE_FD, UPGRADE_VARIABLE } from './messages.js'

/** An upgrade that came to nothing, in a sentence. */
export class UpgradeFailure extends Error {
  constructor(sentence: string) {
    super(sentence)
    this.name = 'UpgradeFailure'
  }
}

export class Successor {
  readonly channel: Channel<ToPredecessor, ToSuccessor>
  readonly #child: ChildProcess
  /** How it ended, as a person would say it. */
  readonly ended: Promise<string>
  /** Its exit code, or 128 and a signal's number. */
  exitCode: number | undefined

  /** Starts the program that this one was started as, with the same words, as it lies on the disk now. */
  constructor() {
    const [near, far] = socketPair()
    const args = [...process.execArgv, ...process.argv.slice(1)]
    // Whoever feeds the watchdog is known by its number, which is another one from here on.
    const env = { ...process.env, [UPGRADE_VARIABLE]: String(UPGRADE_FD), WATCHDOG_PID: undefined }
    this.#child = spawn(process.execPath, args, { stdio: ['inherit', 'inherit', 'inherit', far], env })
    closeSync(far)
    this.channel = new Channel(near)
    this.ended = this.#watch()
  }

  async #watch(): Promise<string> {
    try {
      const [code, signal] = (await once(this.#child, 'exit')) as [number | null, NodeJS.Signals | null]
      this.exitCode = code ?? 1
      return signal === null ? `ended with code ${code}` : `was ended by ${signal}`
    } catch (error) {
      return `could not be started (${(error as Error).message})`
    }
  }

  /** 0 when it could not be started. */
  get pid(): number {
    return this.#child.pid ?? 0
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  /** What it says next, which has to be `kind`. @throws UpgradeFailure */
  async expect<Kind extends ToPredecessor['kind']>(
    kind: Kind,
    timeoutMs?: number,
  ): Promise<Extract<ToPredecessor, { readonly kind: Kind }>> {
    const message = await this.channel.next(timeoutMs)
    if (message?.kind === kind) return message as Extract<ToPredecessor, { readonly kind: Kind }>
    if (message?.kind === 'refused') throw new UpgradeFailure(message.sentence)
    if (message !== undefined) throw new UpgradeFailure(`the new process said '${message.kind}' out of turn`)
    if (!this.channel.ended)
      throw new UpgradeFailure(`the new process did not get as far as '${kind}' in ${timeoutMs} ms`)
    throw new UpgradeFailure(`the new process ${await this.ended} before it was as far as '${kind}': see the log`)
  }

  tell(message: ToSuccessor, descriptors: readonly number[] = []): void {
    try {
      this.channel.tell(message, descriptors)
    } catch (error) {
      throw new UpgradeFailure(`the new process does not listen: ${(error as Error).message}`)
    }
  }

  /** Kills it, and waits until it is dead. */
  async end(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.ended
    this.channel.close()
  }
}
