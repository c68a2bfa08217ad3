// The back-end's side of one session: pieces of a stream in, orders and replies out. Law: one order at a time, and each
// message that asked for an answer gets exactly one, in the order of arrival.
import {
  bits,
  hasBit,
  requestName,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VHOST_USER_PROTOCOL_F_REPLY_ACK,
  VHOST_USER_REPLY_FLAG,
} from './constants.js'
import type { Device } from './device.js'
import { encodeMessage, type Frame, MessageStream } from './message-stream.js'
import type { Order, Reply, Result } from './orders.js'
import { encodeU64 } from './payloads.js'
import { ProtocolError } from './protocol-error.js'
import { Rings } from './rings.js'
import { isKnown, type Request, RULES } from './rules.js'
import { type Agreement, type Context, orderFor, type Step } from './session-messages.js'

interface Outstanding {
  readonly frame: Frame
  readonly answers: boolean
  readonly step: Step
}

/**
 * Feed it with `receive`, then `next` until it gives undefined, carrying out each order and telling `done` of it, and send
 * what `takeReplies` gives:
 *
 *     receive(bytes, descriptors)
 *     while ((order = next()) !== undefined) done(await carryOut(order))
 */
export class Session {
  readonly #device: Device
  readonly #stream = new MessageStream()
  readonly #rings: Rings
  readonly #agreement: Agreement = { phase: 'opened', features: 0n, protocolFeatures: 0n, status: 0n }
  #outstanding: Outstanding | undefined
  #replies: Reply[] = []
  #refusals: string[] = []
  #unused: number[] = []

  constructor(device: Device) {
    this.#device = { ...device, features: device.features | bits(VHOST_USER_F_PROTOCOL_FEATURES) }
    this.#rings = new Rings(device.queuesMax)
  }

  /** What the two sides agreed on so far. */
  get features(): bigint {
    return this.#agreement.features
  }

  get protocolFeatures(): bigint {
    return this.#agreement.protocolFeatures
  }

  /** @throws ProtocolError when the session is lost; `release` then has its descriptors */
  receive(bytes: Uint8Array, descriptors: readonly number[]): void {
    this.#stream.receive(bytes, descriptors)
  }

  /** What has to be done next; undefined while an order is outstanding, or nothing is. @throws ProtocolError */
  next(): Order | undefined {
    while (this.#outstanding === undefined) {
      const frame = this.#stream.next()
      if (frame === undefined) return undefined
      const order = this.#hearWithDescriptors(frame)
      if (order !== undefined) return order
    }
    return undefined
  }

  /** Descriptors that nobody took, for whatever reason, are left to be closed. */
  #hearWithDescriptors(frame: Frame): Order | undefined {
    let taken = false
    const take = () => {
      taken = true
      return frame.descriptors
    }
    try {
      if (!isKnown(frame.request)) this.#refuseUnknown(frame)
      else this.#hear(frame, frame.request, take)
    } finally {
      if (!taken) this.#unused.push(...frame.descriptors)
    }
    return this.#outstanding?.step.order
  }

  /** The order that `next` gave was carried out, or could not be. @throws ProtocolError */
  done(result: Result): void {
    const outstanding = this.#outstanding
    if (outstanding === undefined) throw new TypeError('no order is outstanding')
    this.#outstanding = undefined
    const { frame, answers, step } = outstanding
    step.settle?.(result)
    const reply = step.reply?.(result)
    if (reply !== undefined) {
      if (result.kind === 'refused') this.#noteRefusal(frame, result.reason)
      this.#reply(frame.request, reply.payload, reply.descriptors)
    } else if (!answers) this.#acknowledge(frame, result)
    else if (result.kind === 'refused') throw new ProtocolError('refused', result.reason)
  }

  /** Replies since the last call, in order. */
  takeReplies(): Reply[] {
    const replies = this.#replies
    this.#replies = []
    return replies
  }

  /** What was refused since the last call, where the front-end is told of it and the session goes on: sentences. */
  takeRefusals(): string[] {
    return this.#refusals.splice(0)
  }

  /** Descriptors that nobody needs any more. */
  takeDiscarded(): number[] {
    return [...this.#unused.splice(0), ...this.#rings.takeDiscarded()]
  }

  /** The session has ended: every descriptor that is still its own. */
  release(): number[] {
    return [...this.#unused.splice(0), ...this.#rings.release(), ...this.#stream.release()]
  }

  #refuseUnknown(frame: Frame): void {
    const reason = `${requestName(frame.request)} is not known here`
    if (!this.#asksForReply(frame)) throw new ProtocolError('unknown-request', reason)
    this.#acknowledge(frame, { kind: 'refused', reason })
  }

  #hear<Each extends Request>(frame: Frame, request: Each, take: Context['take']): void {
    const { decode, descriptors, feature, phases, answers } = RULES[request]
    const name = requestName(request)
    const { phase, protocolFeatures } = this.#agreement
    if (frame.isReply) throw new ProtocolError('bad-header', `${name} came as a reply to nothing`)
    if (!phases.includes(phase)) throw new ProtocolError('out-of-turn', `${name} came before SET_FEATURES`)
    if (feature !== undefined && !hasBit(protocolFeatures, feature)) {
      throw new ProtocolError('out-of-turn', `${name} needs protocol feature ${feature}, which was not agreed on`)
    }
    const body = decode(frame.payload)
    if (body === undefined) {
      throw new ProtocolError('bad-payload', `${name} has ${frame.payload.length} bytes that cannot be read`)
    }
    const { min, max } = descriptors(body)
    const came = frame.descriptors.length
    if (came < min || came > max) {
      throw new ProtocolError('bad-descriptors', `${name} came with ${came} descriptors, and needs ${min}`)
    }
    const { length } = frame.payload
    const context = { device: this.#device, rings: this.#rings, agreement: this.#agreement, take, length }
    const step = orderFor(request, body, context)
    if (step.order !== undefined) this.#outstanding = { frame, answers, step }
    else if (step.now !== undefined) this.#reply(request, step.now, [])
    else
      this.#acknowledge(
        frame,
        step.refused === undefined ? { kind: 'done' } : { kind: 'refused', reason: step.refused },
      )
  }

  #asksForReply(frame: Frame): boolean {
    return frame.needsReply && hasBit(this.#agreement.protocolFeatures, VHOST_USER_PROTOCOL_F_REPLY_ACK)
  }

  /** "REPLY_ACK": zero on success. A refusal that nobody asked for ends the session, since the other side believes else. */
  #acknowledge(frame: Frame, result: Result): void {
    const refused = result.kind === 'refused'
    if (!this.#asksForReply(frame)) {
      if (refused) throw new ProtocolError('refused', result.reason)
      return
    }
    if (refused) this.#noteRefusal(frame, result.reason)
    this.#reply(frame.request, encodeU64(refused ? 1n : 0n), [])
  }

  #noteRefusal({ request }: Frame, reason: string): void {
    this.#refusals.push(`${requestName(request)}: ${reason}`)
  }

  #reply(request: number, payload: Uint8Array, descriptors: readonly number[]): void {
    this.#replies.push({ bytes: encodeMessage(request, payload, VHOST_USER_REPLY_FLAG), descriptors })
  }
}
