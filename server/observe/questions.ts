// Questions of the HTTP thread to those who hold the exports. Law: none waits longer than its time-out, and storage that
// hangs collects a bounded number of them and keeps no other export's from being answered.
import type { ControlReply, ControlRequest } from '../control/export-actions.js'

/** How long an answer may take. */
export const ANSWER_TIMEOUT_MS = 5000
/** Questions about one export that are not answered, those that timed out included. */
export const QUESTIONS_PER_EXPORT_MAX = 8
/** The same for all exports together. */
export const QUESTIONS_MAX = 128

/** Nobody answered in time, or too many questions wait already. */
export class NoAnswer extends Error {
  readonly status: 503 | 504

  constructor(status: 503 | 504, message: string) {
    super(message)
    this.status = status
  }
}

interface Open {
  readonly name: string
  readonly settle: (reply: ControlReply) => void
}

export class Questions {
  readonly #post: (id: number, request: ControlRequest) => void
  readonly #timeoutMs: number
  readonly #open = new Map<number, Open>()
  #last = 0

  constructor(post: (id: number, request: ControlRequest) => void, timeoutMs = ANSWER_TIMEOUT_MS) {
    this.#post = post
    this.#timeoutMs = timeoutMs
  }

  /** @throws NoAnswer */
  ask(request: ControlRequest): Promise<ControlReply> {
    const { name = '' } = request
    const same = [...this.#open.values()].filter((other) => other.name === name).length
    if (same >= QUESTIONS_PER_EXPORT_MAX) throw new NoAnswer(504, `${whose(name)} has not answered earlier questions`)
    if (this.#open.size >= QUESTIONS_MAX) throw new NoAnswer(503, 'too many questions wait for an answer')
    this.#last += 1
    const id = this.#last
    return new Promise((resolve, reject) => {
      const late = () => reject(new NoAnswer(504, `${whose(name)} did not answer within ${this.#timeoutMs} ms`))
      const timer = setTimeout(late, this.#timeoutMs)
      const settle = (reply: ControlReply) => {
        clearTimeout(timer)
        resolve(reply)
      }
      // What timed out stays open until it is answered: its work may still be going on over there.
      this.#open.set(id, { name, settle })
      this.#post(id, request)
    })
  }

  answered(id: number, reply: ControlReply): void {
    this.#open.get(id)?.settle(reply)
    this.#open.delete(id)
  }
}

function whose(name: string): string {
  return name === '' ? 'the server' : `storage of export '${name}'`
}
