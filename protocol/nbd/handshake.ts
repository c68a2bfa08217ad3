// The server's half of the newstyle handshake as a table of options: bytes in, replies and one outcome out.
// Law: whatever an option holds, the bytes after it are found again; only a broken magic or flag loses the stream.
import { viewOf } from './bytes.js'
import {
  IHAVEOPT,
  NBD_FLAG_C_FIXED_NEWSTYLE,
  NBD_FLAG_C_NO_ZEROES,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_MAGIC,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_SET_META_CONTEXT,
  NBD_REP_ERR_TLS_REQD,
  NBD_REP_ERR_TOO_BIG,
  NBD_REP_ERR_UNSUP,
  optionName,
} from './constants.js'
import type { HandshakeHost, HandshakeLimits, HandshakeOutcome } from './handshake-host.js'
import { handleOption, OPTIONS } from './handshake-options.js'
import { Negotiated } from './negotiated.js'
import { encodeOptionReply, OPTION_HEADER_BYTES } from './options.js'
import { ProtocolError } from './protocol-error.js'
import { errorMessage } from './reply.js'

const CLIENT_FLAGS_BYTES = 4
const KNOWN_CLIENT_FLAGS = NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES

/** What the next gathered bytes are. `skip` throws away the data of an option that was already answered. */
type State = 'clientFlags' | 'optionHeader' | 'optionData' | 'skip' | 'ended'

/**
 * One connection's handshake. Feed it with `receive`, send what `takeReplies` gives, and go by `outcome`:
 *
 *     S: NBDMAGIC IHAVEOPT flags      greeting()
 *     C: flags                        receive(...)
 *     C: IHAVEOPT option length data  receive(...)  ->  takeReplies(), until outcome is set
 */
export class Handshake {
  readonly #host: HandshakeHost
  readonly #limits: HandshakeLimits
  readonly #negotiated: Negotiated = new Negotiated()
  #state: State = 'clientFlags'
  #buffer = new Uint8Array(64)
  #held = 0
  #need = CLIENT_FLAGS_BYTES
  #option = 0
  #options = 0
  #outcome: HandshakeOutcome | undefined

  constructor(host: HandshakeHost, limits: HandshakeLimits) {
    this.#host = host
    this.#limits = limits
  }

  /** The server's first bytes ("Newstyle negotiation"). */
  greeting(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(18)
    const view = viewOf(bytes)
    view.setBigUint64(0, NBD_MAGIC)
    view.setBigUint64(8, IHAVEOPT)
    view.setUint16(16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)
    return bytes
  }

  /** How the handshake ended; undefined while it goes on. */
  get outcome(): HandshakeOutcome | undefined {
    return this.#outcome
  }

  /** Replies since the last call, in order, to be sent before anything else happens. */
  takeReplies(): Uint8Array[] {
    return this.#negotiated.takeReplies()
  }

  /**
   * Takes bytes from the client and returns how many it used: all of them until there is an outcome; what comes
   * after the outcome belongs to the transmission phase (or, after STARTTLS, to nobody).
   * @throws ProtocolError when the stream is lost
   */
  receive(bytes: Uint8Array): number {
    let at = 0
    while (this.#state !== 'ended') {
      const take = Math.min(this.#need - this.#held, bytes.length - at)
      this.#gather(bytes, at, take)
      at += take
      if (this.#held < this.#need) break
      this.#step()
    }
    return at
  }

  /** Goes on after a successful TLS upgrade: nothing that was negotiated in the clear is kept ("NBD_OPT_STARTTLS"). */
  secured(): void {
    this.#negotiated.forget()
    this.#negotiated.secure = true
    this.#outcome = undefined
    this.#expect('optionHeader', OPTION_HEADER_BYTES)
  }

  #gather(bytes: Uint8Array, at: number, take: number): void {
    if (this.#state !== 'skip') {
      if (this.#buffer.length < this.#need) this.#grow(this.#need)
      this.#buffer.set(bytes.subarray(at, at + take), this.#held)
    }
    this.#held += take
  }

  #grow(bytes: number): void {
    const larger = new Uint8Array(bytes)
    larger.set(this.#buffer.subarray(0, this.#held))
    this.#buffer = larger
  }

  #expect(state: State, need: number): void {
    this.#state = state
    this.#need = need
    this.#held = 0
  }

  #step(): void {
    if (this.#state === 'clientFlags') this.#takeClientFlags()
    else if (this.#state === 'optionHeader') this.#takeOptionHeader()
    else if (this.#state === 'optionData') this.#takeOption(this.#buffer.slice(0, this.#need))
    else this.#expect('optionHeader', OPTION_HEADER_BYTES)
  }

  #takeClientFlags(): void {
    const flags = viewOf(this.#buffer).getUint32(0)
    if ((flags & ~KNOWN_CLIENT_FLAGS) !== 0) {
      throw new ProtocolError('bad-client-flags', `the client set unknown flags: 0x${flags.toString(16)}`)
    }
    this.#negotiated.fixedNewstyle = (flags & NBD_FLAG_C_FIXED_NEWSTYLE) !== 0
    this.#negotiated.noZeroes = (flags & NBD_FLAG_C_NO_ZEROES) !== 0
    this.#expect('optionHeader', OPTION_HEADER_BYTES)
  }

  #takeOptionHeader(): void {
    const view = viewOf(this.#buffer)
    if (view.getBigUint64(0) !== IHAVEOPT) {
      throw new ProtocolError('bad-option-magic', 'an option did not begin with IHAVEOPT')
    }
    this.#options += 1
    if (this.#options > this.#limits.optionsMax) {
      throw new ProtocolError('too-many-options', `more than ${this.#limits.optionsMax} options in one handshake`)
    }
    this.#option = view.getUint32(8)
    const length = view.getUint32(12)
    const isLong = length > this.#limits.optionLengthMax
    if (this.#option in OPTIONS && !isLong) this.#expect('optionData', length)
    else if (this.#option === NBD_OPT_ABORT) this.#takeOption(new Uint8Array(0))
    else if (this.#option === NBD_OPT_EXPORT_NAME) this.#loseLongName(length)
    else this.#refuseUnread(length)
  }

  /** Answers an option whose data are skipped. The spec names TLS before any other reason. */
  #refuseUnread(length: number): void {
    const inTheClear = this.#host.tls === 'require' && !this.#negotiated.secure
    // A SET replaces what was selected before, also when it fails.
    if (this.#option === NBD_OPT_SET_META_CONTEXT) this.#negotiated.selection = undefined
    if (inTheClear) this.#refuse(NBD_REP_ERR_TLS_REQD, 'this server talks of nothing before NBD_OPT_STARTTLS', length)
    else if (this.#option in OPTIONS) {
      this.#refuse(NBD_REP_ERR_TOO_BIG, `${length} bytes of data; ${this.#limits.optionLengthMax} is the bound`, length)
    } else this.#refuse(NBD_REP_ERR_UNSUP, `${optionName(this.#option)} is not known`, length)
  }

  #loseLongName(length: number): never {
    const bound = this.#limits.optionLengthMax
    throw new ProtocolError('option-too-long', `an export name of ${length} bytes; ${bound} is the bound`)
  }

  #refuse(error: number, message: string, length: number): void {
    this.#negotiated.reply(encodeOptionReply(this.#option, error, errorMessage(message)))
    this.#expect('skip', length)
  }

  #takeOption(data: Uint8Array): void {
    this.#expect('optionHeader', OPTION_HEADER_BYTES)
    const outcome = handleOption(this.#option, data, this.#host, this.#negotiated)
    if (outcome === undefined) return
    this.#outcome = outcome
    this.#state = 'ended'
  }
}
