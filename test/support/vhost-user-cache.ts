// The write cache of a device as its driver sees it: one byte of the configuration space.
import {
  decodeConfigAccess,
  encodeConfigAccess,
  VHOST_USER_GET_CONFIG,
  VHOST_USER_SET_CONFIG,
  VIRTIO_BLK_CONFIG_WRITEBACK_AT,
} from 'vhost-user-protocol'
import type { FrontEnd } from './vhost-user-guest.js'

export async function setCache(front: FrontEnd, on: boolean): Promise<void> {
  const data = Uint8Array.of(on ? 1 : 0)
  const access = { offset: VIRTIO_BLK_CONFIG_WRITEBACK_AT, size: 1, flags: 0, data }
  await front.tell(VHOST_USER_SET_CONFIG, encodeConfigAccess(access))
}

export async function cacheOf(front: FrontEnd): Promise<number | undefined> {
  const question = { offset: VIRTIO_BLK_CONFIG_WRITEBACK_AT, size: 1, flags: 0, data: new Uint8Array(1) }
  const { payload } = await front.ask(VHOST_USER_GET_CONFIG, encodeConfigAccess(question))
  return decodeConfigAccess(payload)?.data[0]
}
