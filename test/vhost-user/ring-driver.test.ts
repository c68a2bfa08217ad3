// Guests that are programs in C, as fast as guests are and as mean as they may be, at the real server.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'
import { attach, lastFirst } from '../support/faults.js'
import { scratchFolder } from '../support/guest-images.js'
import { seededRandom } from '../support/random.js'
import { needs, UNDER_ALL } from '../support/requirements.js'
import { compile } from '../support/ring-programs.js'
import { patternOf, serveGuests } from '../support/vhost-user-served.js'

const run = promisify(execFile)
const HOSTILE_SECONDS = UNDER_ALL ? 60 : 4

describe('a guest that is a program', { skip: needs('cc') }, () => {
  test('writes the whole disk 16 requests deep, in pieces and in one, and reads back what belongs to each sector', async (t) => {
    const scope = lastFirst(t)
    const { socket } = await serveGuests(scope)
    const program = compile(scratchFolder(scope), 'vhost-load')
    for (const [bytes, segments, eventIdx] of [
      [16_384, 2, 1],
      [65_536, 4, 0],
      [262_144, 64, 1],
    ] as const) {
      const job = ['verify', bytes, 16, 0, `segments=${segments}`, `event-idx=${eventIdx}`].map(String)
      const { stdout } = await run(program, [socket, ...job])
      const { answered, errors, wrong } = JSON.parse(stdout) as Record<string, number>
      assert.deepEqual({ answered, errors, wrong }, { answered: (64 << 20) / bytes, errors: 0, wrong: 0 })
    }
  })

  test('spoils messages, rings, tables and its memory, and harms nobody but itself', async (t) => {
    const scope = lastFirst(t)
    const { candor, socket } = await serveGuests(scope)
    const client = await attach(candor)
    const last = (64 << 20) - 4096
    await client.write(last, patternOf(4096, 9))
    await client.flush()
    const program = compile(scratchFolder(scope), 'vhost-hostile')
    const open = () => readdirSync(`/proc/${candor.pid}/fd`).length
    // The first sessions open what stays: threads, rings, pipes.
    await run(program, [socket, String(seededRandom(t).seed), '1'])
    const before = open()
    const { stdout } = await run(program, [socket, String(seededRandom(t).seed), String(HOSTILE_SECONDS)])
    const { sessions = 0, ended = 0 } = JSON.parse(stdout) as Record<string, number>
    t.diagnostic(`${sessions} sessions, of which the server ended ${ended}`)
    assert.ok(ended > 0 && ended < sessions)
    // The last session may not be closed yet; threads for storage come and go. What is left of each session would be hundreds.
    assert.ok(open() < before + 20, `${before} descriptors became ${open()}`)
    assert.doesNotMatch(readFileSync(`/proc/${candor.pid}/maps`, 'utf8'), /(memfd:hostile[\s\S]*){3}/)
    await client.read(0, 4096)
    await client.disconnect()
  })
})
