// What a server's handshake has settled so far.
import type { Selection } from './meta-context.js'
import type { MetaContext } from './options.js'
import type { ReplyStyle } from './reply.js'

/** What has been settled so far, and the replies that wait to be sent. */
export class Negotiated {
  fixedNewstyle = false
  noZeroes = false
  secure = false
  replyStyle: ReplyStyle = 'simple'
  /** Contexts of the last NBD_OPT_SET_META_CONTEXT, with the export name it was sent for. */
  selection: Selection | undefined
  #replies: Uint8Array[] = []

  reply(bytes: Uint8Array): void {
    this.#replies.push(bytes)
  }

  takeReplies(): Uint8Array[] {
    const replies = this.#replies
    this.#replies = []
    return replies
  }

  /** The contexts that hold if transmission begins on the export that was asked for by this name. */
  contextsFor(name: string): readonly MetaContext[] {
    return this.selection?.exportName === name ? this.selection.contexts : []
  }

  forget(): void {
    this.replyStyle = 'simple'
    this.selection = undefined
  }
}
