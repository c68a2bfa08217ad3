// Clients that mean harm, many at once, and what they cost the server. Law: a figure is read from the kernel, when it
// has stopped changing.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { OPT } from './conformance-numbers.js'
import { FLAGS, infoData, option, type Raw, raw, request } from './raw-bytes.js'

const SETTLE_SAMPLES = 5
const SETTLE_MS = 60
const SETTLE_TOLERANCE = 256 * 1024

/** Memory of a process that the kernel holds for it now, in bytes. */
export function residentBytes(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  assert.ok(kib !== undefined, `process ${pid} has no VmRSS`)
  return Number(kib) * 1024
}

/** The same, once it has stopped growing: what was sent to the server has arrived where it goes. */
export async function settledBytes(pid: number): Promise<number> {
  let highest = residentBytes(pid)
  for (let quiet = 0; quiet < SETTLE_SAMPLES; quiet++) {
    await sleep(SETTLE_MS)
    const now = residentBytes(pid)
    if (now > highest + SETTLE_TOLERANCE) quiet = 0
    highest = Math.max(highest, now)
  }
  return residentBytes(pid)
}

/** All that is said to attach to the export 'disk' with simple replies. */
export const ATTACH = raw(FLAGS, option(OPT.GO, infoData('disk')))
/** Bytes of the server's answer to it: the greeting, NBD_INFO_EXPORT, and the acknowledgement. */
export const ATTACHED_BYTES = 18 + 20 + 12 + 20

/** A connection that says these bytes at once and reads nothing of what comes. */
export async function mute(path: string, ...says: readonly Raw[]): Promise<Socket> {
  const socket = connect({ path })
  // A server may reset who does harm; that is no error of the test.
  socket.on('error', () => undefined)
  await once(socket, 'connect')
  socket.pause()
  socket.write(raw(...says))
  return socket
}

/** A connection that has attached, and is silent from then on. */
export async function attached(path: string): Promise<Socket> {
  const socket = await mute(path, ATTACH)
  let seen = 0
  while (seen < ATTACHED_BYTES) {
    const chunk = socket.read() as Buffer | null
    if (chunk === null) await once(socket, 'readable')
    else seen += chunk.length
  }
  return socket
}

/** So many READs of `length` bytes, in one piece. */
export function manyReads(count: number, length: number): Uint8Array {
  const one = request('simple', { type: 0, cookie: 1n, length })
  const all = new Uint8Array(count * one.length)
  for (let index = 0; index < count; index++) all.set(one, index * one.length)
  return all
}

export function allGone(sockets: readonly Socket[]): void {
  for (const socket of sockets) socket.destroy()
}
