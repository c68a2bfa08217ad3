// The write cache of a device as its driver sees it: one byte of the configuration space.
import assert from 'node:assert/strict'
import {
  decodeConfigAccess,
  decodeU64,
  encodeConfigAccess,
  VHOST_USER_GET_CONFIG,
  VHOST_USER_NEED_REPLY_FLAG,
  VHOST_USER_SET_CONFIG,
  VIRTIO_BLK_CONFIG_WRITEBACK_AT,
} from 'vhost-user-protocol'
import type { FrontEnd } from './vhost-user-guest.js'

/** Whether the back-end says that it did so. */
export async function turnCache(front: FrontEnd, on: boolean, flags = 0): Promise<boolean> {
  const data = Uint8Array.of(on ? 1 : 0)
  const access = encodeConfigAccess({ offset: VIRTIO_BLK_CONFIG_WRITEBACK_AT, size: 1, flags, data })
  const { payload } = await front.ask(VHOST_USER_SET_CONFIG, access, [], VHOST_USER_NEED_REPLY_FLAG)
  return decodeU64(payload) === 0n
}

export async function setCache(front: FrontEnd, on: boolean): Promise<void> {
  assert.ok(await turnCache(front, on))
}

export async function cacheOf(front: FrontEnd): Promise<number | undefined> {
  const question = { offset: VIRTIO_BLK_CONFIG_WRITEBACK_AT, size: 1, flags: 0, data: new Uint8Array(1) }
  const { payload } = await front.ask(VHOST_USER_GET_CONFIG, encodeConfigAccess(question))
  return decodeConfigAccess(payload)?.data[0]
}
