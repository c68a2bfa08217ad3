// One attempt at a change that waits for storage: what truth.md asks of every WRITE, TRIM and WRITE_ZEROES, whichever front
// end it came by. Law: it is marked before it is submitted, and cleared by a whole success of the same epoch alone.
import { DONE, EIO, type Outcome } from '../../backends/index.js'
import type { Export } from './export.js'

/** What is to be changed, and how. */
export interface Attempt {
  readonly offset: number
  readonly length: number
  /** Success speaks of stable storage. */
  readonly durable: boolean
  /** A TRIM changes nothing that anybody counts on, and clears nothing either. */
  readonly isTrim: boolean
  /** It may allocate, and so falls under the reserve. */
  readonly takesSpace: boolean
  /** Asks storage, unless the client has gone while space was looked for. */
  readonly submit: () => Promise<Outcome>
}

/** A held request is attempted again, and each attempt meets the image and its state as they are by then. */
export async function attemptChange(served: Export, attempt: Attempt): Promise<Outcome> {
  const { offset, length, durable, isTrim, takesSpace, submit } = attempt
  const { durability, room } = served
  served.inspect()
  if (durable && durability.failure !== DONE) return durability.failure
  const { epoch } = durability
  const change = isTrim ? undefined : durability.begin(offset, length)
  const make = () => (takesSpace ? room.within(offset, length, submit) : submit())
  // A change that cannot be remembered is not made.
  const outcome = durability.unrecorded ? EIO : await make()
  if (outcome === DONE && !isTrim) served.reached(offset + length)
  // What was in flight at a failed sync loses no mark, and the sync that took the error may be heard later: so it is
  // judged first.
  const told = durable ? durability.judge(outcome, epoch) : outcome
  if (change !== undefined) durability.finish(change, told === DONE, durable)
  if (durable && told !== DONE) await durability.stored
  return told
}
