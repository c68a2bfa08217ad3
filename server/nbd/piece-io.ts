// What is done with one piece of a large WRITE, and with all of them at its end. Law: the same rules as for a small WRITE,
// but that marks and turns are the whole request's, and taken by whoever calls.
import { type DecodedRequest, encodeRequest, requestHeaderBytes, viewOf } from 'nbd-protocol'
import { DONE, EIO, type Outcome, RESERVED, WOULD_BLOCK } from '../../backends/index.js'
import type { Export } from '../exports/export.js'
import { isSpaceError } from '../exports/space-hold.js'

/** Writes bytes[at, at + length) in this turn; WOULD_BLOCK where storage, a reserve or a want of space may make it wait. */
export function writePieceNow(served: Export, bytes: Uint8Array, at: number, length: number, offset: number): Outcome {
  if (!served.room.has(length)) return WOULD_BLOCK
  served.inspect()
  // A change that cannot be remembered is not made.
  if (served.durability.unrecorded) return EIO
  const outcome = served.backend.writeNow(bytes, at, length, offset)
  if (outcome !== DONE) return served.space.holds && isSpaceError(outcome) ? WOULD_BLOCK : outcome
  served.reached(offset + length)
  served.room.took(length)
  return DONE
}

/** Writes a piece; each attempt of a held one meets the image and its state as they are by then. */
export async function writePiece(
  served: Export,
  piece: Uint8Array,
  offset: number,
  durable: boolean,
  wanted: () => boolean,
): Promise<Outcome> {
  const { durability, room, backend } = served
  served.inspect()
  if (durable && durability.failure !== DONE) return durability.failure
  if (durability.unrecorded) return EIO
  // A look at the space may have taken long enough for the client to go.
  const submit = async () => (wanted() ? backend.write(piece, 0, piece.length, offset, false) : RESERVED)
  const outcome = await room.within(offset, piece.length, submit)
  if (outcome === DONE) served.reached(offset + piece.length)
  return outcome
}

/** The second half of FUA, when all pieces are in the kernel's hands: a sync. `epoch` is that of the first piece. */
export async function syncPieces(served: Export, command: number, epoch: number): Promise<Outcome> {
  const { durability } = served
  const waiting = served.waiting.enter(command)
  const synced = await served.flush()
  const told = synced === DONE ? durability.judge(DONE, epoch) : synced
  if (told !== DONE) await durability.stored
  served.waiting.leave(waiting)
  return told
}

/** The header of a request for what is left of another one, of which `landed` bytes are done. */
export function restOf(request: DecodedRequest, landed: number, extended: boolean): Uint8Array {
  const [offset, length] = [request.offset + landed, request.length - landed]
  const header = new Uint8Array(requestHeaderBytes(extended))
  encodeRequest(viewOf(header), 0, extended, { ...request, offset, length, payloadLength: length })
  return header
}
