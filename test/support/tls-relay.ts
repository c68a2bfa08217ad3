// What lies between a client and its tunnel, and may do to their bytes what a network may. Law: all goes through until the
// relay is told to keep what the client says.
import { once } from 'node:events'
import type { Socket } from 'node:net'
import type { ConnectionOptions, TLSSocket } from 'node:tls'
import { connected, type Entered, type Scene, socketOver } from './tls-tunnels.js'

const HEAD_BYTES = 5

/** Records of TLS one by one; undefined when the last one is not whole. */
function recordsIn(bytes: Buffer): Buffer[] | undefined {
  const records: Buffer[] = []
  for (let at = 0, end = 0; at < bytes.length; at = end) {
    if (at + HEAD_BYTES > bytes.length) return undefined
    end = at + HEAD_BYTES + bytes.readUInt16BE(at + 3)
    if (end > bytes.length) return undefined
    records.push(bytes.subarray(at, end))
  }
  return records
}

export class Relay {
  /** Leads to the tunnel. */
  readonly onward: Socket
  readonly #client: Socket
  readonly #carry = (bytes: Buffer) => this.onward.write(bytes)

  constructor(client: Socket, onward: Socket) {
    this.onward = onward
    this.#client = client.on('data', this.#carry)
    onward.pipe(client)
  }

  /** The records in which the client says these words, a record each, none of which have gone any further. */
  async keep(client: TLSSocket, words: readonly string[]): Promise<readonly Buffer[]> {
    this.#client.off('data', this.#carry)
    const kept: Buffer[] = []
    this.#client.on('data', (bytes: Buffer) => kept.push(bytes))
    for (const word of words) await new Promise<void>((resolve) => client.write(word, () => resolve()))
    for (;;) {
      const records = recordsIn(Buffer.concat(kept))
      if (records?.length === words.length) return records
      await once(this.#client, 'data')
    }
  }
}

/** A client inside TLS with a relay in between. */
export async function enterThroughRelay(
  scene: Scene,
  options: ConnectionOptions,
): Promise<Entered & { readonly relay: Relay }> {
  const [near, relayed] = await connected(scene.scope)
  const [onward, far] = await connected(scene.scope)
  const relay = new Relay(socketOver(scene.scope, relayed), onward)
  return { ...(await scene.enter(options, [near, far])), relay }
}
