// What a client sees of a server's exports, as it is told over the wire.
import assert from 'node:assert/strict'
import type { NetConnectOpts } from 'node:net'
import type { ConnectionOptions } from 'node:tls'
import { OPT, REP } from './conformance-numbers.js'
import { infoData } from './raw-bytes.js'
import { TlsSession } from './tls-client.js'

/** The names that LIST tells; GO and INFO have to agree with it on each of `names`. */
export async function visible(
  place: number | string | NetConnectOpts,
  names: readonly string[],
  tls?: ConnectionOptions,
): Promise<string[]> {
  const session = await TlsSession.open(place)
  if (tls !== undefined) await session.startTls(tls)
  const listed: string[] = []
  for (const { type, data } of await session.option(OPT.LIST)) {
    if (type === REP.SERVER) listed.push(data.subarray(4, 4 + data.readUInt32BE(0)).toString())
  }
  for (const name of names) {
    const expected = listed.includes(name) ? REP.ACK : REP.ERR_UNKNOWN
    assert.equal(await session.final(OPT.INFO, infoData(name)), expected, `INFO of '${name}'`)
    if (expected === REP.ERR_UNKNOWN)
      assert.equal(await session.final(OPT.GO, infoData(name)), expected, `GO to '${name}'`)
  }
  const [first] = listed
  if (first !== undefined) assert.equal(await session.final(OPT.GO, infoData(first)), REP.ACK)
  session.leave()
  return listed
}
