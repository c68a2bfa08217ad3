// A file system that says what the test wants, and exports whose rooms are on it.
import assert from 'node:assert/strict'
import { after } from 'node:test'
import type { BackingSpace } from '../../backends/index.js'
import { Backing } from '../../server/exports/backing.js'
import { Room } from '../../server/exports/room.js'
import { SpaceHold, type SpacePolicy } from '../../server/exports/space-hold.js'
import { BackingDesk } from '../../server/io/backing-desk.js'
import { exportCounters } from '../../server/observe/counters.js'

/** A file system by word of mouth. What was written is `taken` from it whenever the test says so. */
export class Disk implements BackingSpace {
  readonly lags: boolean
  free: number
  allocated = 0
  looks = 0
  /** Of each look. */
  readonly settled: boolean[] = []
  asked = 0
  /** What every write takes of its length, from 0 to 1. */
  share = 1
  /** A look waits for this. */
  gate: Promise<void> = Promise.resolve()

  constructor(free: number, lags = false) {
    this.free = free
    this.lags = lags
  }

  async look(settle: boolean) {
    this.looks += 1
    this.settled.push(settle)
    const { free, allocated, gate } = this
    await gate
    return { free, size: 1 << 30, allocated }
  }

  /** Keeps looks waiting until the returned function is called. */
  close(): () => void {
    let open = () => {}
    this.gate = new Promise((resolve) => {
      open = resolve
    })
    return open
  }

  async allocates(_offset: number, length: number) {
    this.asked += 1
    return length * this.share
  }
}

export interface Sharing {
  readonly reserve: number
  readonly policy?: SpacePolicy
  readonly size?: number
  readonly backing?: Backing
}

/** Who asks for what is held. */
export const SOMEBODY = { client: 'test', command: 1, offset: 0, length: 1024 }

export const PLACE = { device: '1:1', mount: '/pretended' }

/** A file system of its own, in one thread's eyes. */
export function fresh(desk = new BackingDesk(), thread: object = {}): Backing {
  const share = desk.shareFor('disk', PLACE, thread)
  assert.ok(share)
  return new Backing(share)
}

export async function roomOn(disk: Disk, { reserve, policy, size = 1 << 20, backing = fresh() }: Sharing) {
  let changed = () => {}
  const hold = new SpaceHold(policy ?? { kind: 'report' }, { changed: () => changed() })
  const counters = exportCounters()
  const room = new Room({ name: 'disk', size, readOnly: false, space: disk, reserve, counters, hold })
  changed = () => room.heldChanged()
  await room.enter(backing)
  after(() => room.leave())
  return { room, hold, counters, backing }
}
