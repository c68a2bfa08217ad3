// The memory into which all connections of a thread read, with room in front for a frame of which a part came before. Law:
// what lies in it belongs to the connection that has read last, and to no other.
import { viewOf } from 'nbd-protocol'

export const SLAB_BYTES = 4 << 20
/** Partial frames up to this size are joined in front of the next arrival; larger ones get a buffer of their own. */
export const HEADROOM_BYTES = 64 << 10

export const slab = Buffer.allocUnsafeSlow(HEADROOM_BYTES + SLAB_BYTES)
export const slabView = viewOf(slab)
export const slabTarget = slab.subarray(HEADROOM_BYTES)
