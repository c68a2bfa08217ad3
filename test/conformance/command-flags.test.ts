// "Command flags", "Error values" and "Size constraints": what is refused, with which error, in every reply style.
import assert from 'node:assert/strict'
import { statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { CMD, E, FLAG, HAS, MIB, OPT } from '../support/conformance-numbers.js'
import { Served, serveImages, WATCHDOG_MS } from '../support/conformance-server.js'
import { type Asked, Session } from '../support/conformance-session.js'
import { be32, be64, filled, hex, infoData, raw, STYLES, type Style, zeroes } from '../support/raw-bytes.js'

const timeout = WATCHDOG_MS
const SIZE = 4 * MIB
const BASE = ['base:allocation']
const served = serveImages(SIZE)
const COMMANDS = [CMD.READ, CMD.WRITE, CMD.TRIM, CMD.CACHE, CMD.WRITE_ZEROES, CMD.BLOCK_STATUS] as const

/** Flags that the specification documents for each command, all features being on. */
const DOCUMENTED: Readonly<Record<number, number>> = {
  [CMD.READ]: FLAG.FUA | FLAG.DF,
  [CMD.WRITE]: FLAG.FUA | FLAG.PAYLOAD_LEN,
  [CMD.FLUSH]: FLAG.FUA,
  [CMD.TRIM]: FLAG.FUA,
  [CMD.CACHE]: FLAG.FUA,
  [CMD.WRITE_ZEROES]: FLAG.FUA | FLAG.NO_HOLE | FLAG.FAST_ZERO,
  [CMD.BLOCK_STATUS]: FLAG.FUA | FLAG.REQ_ONE | FLAG.PAYLOAD_LEN,
}

function documented(type: number, style: Style): number {
  const without = { simple: FLAG.DF | FLAG.PAYLOAD_LEN, structured: FLAG.PAYLOAD_LEN, extended: 0 }[style]
  return (DOCUMENTED[type] ?? 0) & ~without
}

async function enter(scope: Parameters<typeof Session.open>[0], style: Style): Promise<Session> {
  return Session.enter(scope, served.unix, style, { contexts: style === 'simple' ? [] : BASE })
}

/** A sound request of this command; under extended headers a payload comes with its flag. */
function sound(session: Session, type: number, flags: number): Asked {
  const extended = session.style === 'extended'
  if (type === CMD.WRITE) return session.writing(0, filled(512, 1), flags)
  if (extended && (flags & FLAG.PAYLOAD_LEN) !== 0) {
    const payload = raw(be64(512), be32(1))
    return { type, flags, length: payload.length, payload }
  }
  return { type, flags, length: type === CMD.FLUSH ? 0 : 512 }
}

for (const style of STYLES) {
  describe(`${style} replies`, { timeout }, () => {
    test('"Command flags": each flag is taken where it is documented, else EINVAL', async (scope) => {
      const session = await enter(scope, style)
      for (const type of [...COMMANDS, CMD.FLUSH]) {
        const known = type === CMD.BLOCK_STATUS && style === 'simple' ? undefined : documented(type, style)
        for (let bit = 0; bit < 16; bit++) {
          const expected = known !== undefined && (known & (1 << bit)) !== 0 ? 0 : E.INVAL
          assert.equal(await session.error(sound(session, type, 1 << bit)), expected, `command ${type}, bit ${bit}`)
        }
      }
      await session.serves()
    })

    test('"NBD_CMD_FLAG_FUA": every command takes it', async (scope) => {
      const session = await enter(scope, style)
      for (const type of [...COMMANDS, CMD.FLUSH]) {
        const expected = type === CMD.BLOCK_STATUS && style === 'simple' ? E.INVAL : 0
        assert.equal(await session.error(sound(session, type, FLAG.FUA)), expected, `command ${type}`)
      }
    })

    test('"Error values": past the end a write is ENOSPC, everything else EINVAL', async (scope) => {
      const session = await enter(scope, style)
      const far = [2n ** 31n, 2n ** 32n, 2n ** 53n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 512n, 2n ** 64n - 1n]
      const outside = [[SIZE, 1], [SIZE - 1, 2], [SIZE + 1, 1], [SIZE - 512, 65_536], ...far.map((at) => [at, 512])]
      for (const [offset = 0, length] of outside) {
        for (const type of COMMANDS) {
          const asked = { type, offset, length: length ?? 0 }
          const writing = session.writing(offset, zeroes(Number(length)))
          const error = await session.error(type === CMD.WRITE ? writing : asked)
          assert.equal(error, type === CMD.WRITE ? E.NOSPC : E.INVAL, `command ${type} at ${offset}`)
        }
      }
      assert.equal(statSync(served.image).size, SIZE)
      await session.serves()
    })

    test('"Request types": a length of zero does not disconnect', async (scope) => {
      const session = await enter(scope, style)
      for (const offset of [0, 512, SIZE, SIZE + 1, 2n ** 63n]) {
        for (const type of COMMANDS)
          await session.error(type === CMD.WRITE ? session.writing(offset, zeroes(0)) : { type, offset })
      }
      for (const type of [CMD.READ, CMD.TRIM, CMD.WRITE_ZEROES]) assert.equal(await session.error({ type }), 0)
      await session.write(0, filled(512, 0x77))
      assert.equal(await session.error({ type: CMD.WRITE_ZEROES, offset: 0 }), 0)
      assert.equal(await session.error({ type: CMD.TRIM, offset: 0 }), 0)
      const { chunks } = await session.request({ type: CMD.READ, offset: 0, length: 512 })
      assert.ok(hex(chunks[0]?.payload ?? zeroes(0)).endsWith('77'.repeat(512)), 'and zeroes nothing')
    })

    test('"NBD_CMD_BLOCK_STATUS": without a context it is EINVAL', async (scope) => {
      const session = await Session.enter(scope, served.unix, style)
      assert.equal(await session.error({ type: CMD.BLOCK_STATUS, offset: 0, length: 512 }), E.INVAL)
      await session.serves()
    })
  })
}

describe('a read-only export', { timeout }, () => {
  const readOnly = new Served(SIZE, (folder) => {
    writeFileSync(join(folder, 'disk.img'), filled(70_000, 6))
    truncateSync(join(folder, 'disk.img'), SIZE)
    return [`disk=${join(folder, 'disk.img')}`, '--read-only']
  })
  for (const style of STYLES) {
    describe(`${style} replies`, () => {
      test('"NBD_FLAG_READ_ONLY": shown, and what would write is EPERM', async (scope) => {
        const session = await Session.open(scope, readOnly.unix)
        await session.negotiate(style)
        const [info] = await session.accepted(OPT.GO, infoData('disk'))
        const flags = info?.data.readUInt16BE(10) ?? 0
        assert.equal(flags & (HAS.READ_ONLY | HAS.TRIM | HAS.WRITE_ZEROES | HAS.FAST_ZERO), HAS.READ_ONLY)
        assert.equal(await session.error(session.writing(0, filled(70_000, 1))), E.PERM)
        for (const type of [CMD.TRIM, CMD.WRITE_ZEROES]) {
          assert.equal(await session.error({ type, offset: 0, length: 512 }), E.PERM)
          assert.equal(await session.error({ type, flags: FLAG.FUA, offset: 0, length: 512 }), E.PERM)
        }
        for (const type of [CMD.READ, CMD.CACHE]) assert.equal(await session.error({ type, offset: 0, length: 512 }), 0)
        assert.equal(await session.error({ type: CMD.FLUSH }), 0)
      })
    })
  }
})
