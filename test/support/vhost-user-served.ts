// An image served to guests, NBD beside it, for tests of whole sessions.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN } from 'vhost-user-protocol'
import type { RunningCandor } from './candor.js'
import { MIB, type Scope, serve } from './faults.js'
import { scratchFolder } from './guest-images.js'
import { leaveFree } from './guest-scenario.js'
import { mountLoopDisk, sparseFile } from './loop-disk.js'
import { attachGuest, CACHED, type FrontEnd } from './vhost-user-guest.js'
import { GuestMachine } from './vhost-user-machine.js'

export const DISK_BYTES = 64 * MIB
export const SECTOR = 512
const LOOK_AGAIN_MS = 20
export const NOTHING = new Uint8Array(0)

export interface ServedGuests {
  readonly candor: RunningCandor
  readonly image: string
  readonly socket: string
  readonly stateDirectory: string
  /** Starts it again, when it has ended, with other words. */
  again(...args: readonly string[]): Promise<RunningCandor>
}

export async function serveGuests(scope: Scope, ...args: readonly string[]): Promise<ServedGuests> {
  const folder = scratchFolder(scope)
  return serveGuestsIn(scope, folder, sparseFile(join(folder, 'disk.img'), DISK_BYTES), ...args)
}

/** The image may lie elsewhere than socket and state. */
export async function serveGuestsIn(
  scope: Scope,
  folder: string,
  image: string,
  ...args: readonly string[]
): Promise<ServedGuests> {
  const socket = join(folder, 'guest.sock')
  const listen = ['--listen', 'tcp:127.0.0.1:0', '--listen', `vhost-user:${socket}`]
  const stateDirectory = join(folder, 'state')
  const state = ['--state-dir', stateDirectory]
  const start = (...words: readonly string[]) => serve(scope, [`disk=${image}`, ...listen, ...state, ...words])
  return { candor: await start(...args), image, socket, stateDirectory, again: start }
}

/** A guest of its own, attached. */
export async function newGuest(
  scope: Scope,
  socket: string,
  { packed = false, features = CACHED, log = true } = {},
): Promise<FrontEnd> {
  const machine = new GuestMachine(packed)
  scope.after(() => machine.close())
  const frontEnd = await attachGuest(socket, machine, features, { log })
  scope.after(() => frontEnd.close())
  return frontEnd
}

export function patternOf(length: number, seed: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, index) => (index * 7 + (index >> 8) + seed) & 0xff))
}

/** Looks until it is so. */
export async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await pause(LOOK_AGAIN_MS)
}

async function gauge(candor: RunningCandor, name: string): Promise<number> {
  return (await candor.metrics()).get(`${name}{export="disk"}`) ?? 0
}

/** Requests that wait for space. */
export const heldBy = (candor: RunningCandor) => gauge(candor, 'candor_requests_held')
export const inFlightOf = (candor: RunningCandor) => gauge(candor, 'candor_requests_in_flight')

/** What a guest reads, which has to succeed. */
export async function readBack(front: FrontEnd, sector: number, length: number): Promise<Buffer> {
  const { status, data } = await front.do(VIRTIO_BLK_T_IN, sector, NOTHING, length)
  assert.equal(status, VIRTIO_BLK_S_OK)
  return data
}

/** A host with hardly any space, that can be enlarged. */
export async function serveOnFullHost(scope: Scope, policy: string) {
  const host = mountLoopDisk(scope, { type: 'xfs', sizeMiB: 320 })
  const image = sparseFile(join(host.folder, 'disk.img'), DISK_BYTES)
  leaveFree(host, 2)
  const enlarge = () => host.grow(640)
  return { enlarge, ...(await serveGuestsIn(scope, scratchFolder(scope), image, '--on-enospc', policy)) }
}
