// Every number of the vhost-user protocol that a block device meets, verbatim under its name in the specification
// (docs/interop/vhost-user.rst of qemu/qemu), so that a search crosses from the spec to the code.

// Front-end message types.
export const VHOST_USER_GET_FEATURES = 1
export const VHOST_USER_SET_FEATURES = 2
export const VHOST_USER_SET_OWNER = 3
export const VHOST_USER_RESET_OWNER = 4
export const VHOST_USER_SET_MEM_TABLE = 5
export const VHOST_USER_SET_LOG_BASE = 6
export const VHOST_USER_SET_LOG_FD = 7
export const VHOST_USER_SET_VRING_NUM = 8
export const VHOST_USER_SET_VRING_ADDR = 9
export const VHOST_USER_SET_VRING_BASE = 10
export const VHOST_USER_GET_VRING_BASE = 11
export const VHOST_USER_SET_VRING_KICK = 12
export const VHOST_USER_SET_VRING_CALL = 13
export const VHOST_USER_SET_VRING_ERR = 14
export const VHOST_USER_GET_PROTOCOL_FEATURES = 15
export const VHOST_USER_SET_PROTOCOL_FEATURES = 16
export const VHOST_USER_GET_QUEUE_NUM = 17
export const VHOST_USER_SET_VRING_ENABLE = 18
export const VHOST_USER_SET_BACKEND_REQ_FD = 21
export const VHOST_USER_GET_CONFIG = 24
export const VHOST_USER_SET_CONFIG = 25
export const VHOST_USER_GET_INFLIGHT_FD = 31
export const VHOST_USER_SET_INFLIGHT_FD = 32
export const VHOST_USER_RESET_DEVICE = 34
export const VHOST_USER_GET_MAX_MEM_SLOTS = 36
export const VHOST_USER_ADD_MEM_REG = 37
export const VHOST_USER_REM_MEM_REG = 38
export const VHOST_USER_SET_STATUS = 39
export const VHOST_USER_GET_STATUS = 40

// Back-end message types.
export const VHOST_USER_BACKEND_CONFIG_CHANGE_MSG = 2

// Header flags ("Header").
export const VHOST_USER_VERSION = 1
export const VHOST_USER_VERSION_MASK = 3
export const VHOST_USER_REPLY_FLAG = 1 << 2
export const VHOST_USER_NEED_REPLY_FLAG = 1 << 3

/** Of the u64 of SET_VRING_KICK, CALL and ERR. */
export const VHOST_USER_VRING_INDEX_MASK = 0xff
export const VHOST_USER_VRING_NOFD_FLAG = 1 << 8

/** Bytes of configuration space that a message may carry. */
export const VHOST_USER_CONFIG_BYTES_MAX = 256
/** rust-vmm's name for where the space begins, as its front-ends ask for it: at this offset, where the specification says 0. */
export const VHOST_USER_CONFIG_OFFSET = 0x100

// Protocol features, as the numbers of their bits.
export const VHOST_USER_PROTOCOL_F_MQ = 0
export const VHOST_USER_PROTOCOL_F_LOG_SHMFD = 1
export const VHOST_USER_PROTOCOL_F_RARP = 2
export const VHOST_USER_PROTOCOL_F_REPLY_ACK = 3
export const VHOST_USER_PROTOCOL_F_MTU = 4
export const VHOST_USER_PROTOCOL_F_BACKEND_REQ = 5
export const VHOST_USER_PROTOCOL_F_CROSS_ENDIAN = 6
export const VHOST_USER_PROTOCOL_F_CRYPTO_SESSION = 7
export const VHOST_USER_PROTOCOL_F_PAGEFAULT = 8
export const VHOST_USER_PROTOCOL_F_CONFIG = 9
export const VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD = 10
export const VHOST_USER_PROTOCOL_F_HOST_NOTIFIER = 11
export const VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD = 12
export const VHOST_USER_PROTOCOL_F_RESET_DEVICE = 13
export const VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS = 14
export const VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15
export const VHOST_USER_PROTOCOL_F_STATUS = 16

// Feature bits of virtio and of vhost-user ("Reserved Feature Bits" of virtio 1.2), as the numbers of their bits.
export const VIRTIO_F_ANY_LAYOUT = 27
export const VIRTIO_F_INDIRECT_DESC = 28
export const VIRTIO_F_EVENT_IDX = 29
export const VHOST_USER_F_PROTOCOL_FEATURES = 30
export const VIRTIO_F_VERSION_1 = 32
export const VIRTIO_F_RING_PACKED = 34

/** A word with these bits set. */
export function bits(...numbers: readonly number[]): bigint {
  return numbers.reduce((word, number) => word | (1n << BigInt(number)), 0n)
}

export function hasBit(word: bigint, number: number): boolean {
  return ((word >> BigInt(number)) & 1n) === 1n
}

const REQUEST_NAMES: Readonly<Record<number, string>> = {
  [VHOST_USER_GET_FEATURES]: 'GET_FEATURES',
  [VHOST_USER_SET_FEATURES]: 'SET_FEATURES',
  [VHOST_USER_SET_OWNER]: 'SET_OWNER',
  [VHOST_USER_RESET_OWNER]: 'RESET_OWNER',
  [VHOST_USER_SET_MEM_TABLE]: 'SET_MEM_TABLE',
  [VHOST_USER_SET_LOG_BASE]: 'SET_LOG_BASE',
  [VHOST_USER_SET_LOG_FD]: 'SET_LOG_FD',
  [VHOST_USER_SET_VRING_NUM]: 'SET_VRING_NUM',
  [VHOST_USER_SET_VRING_ADDR]: 'SET_VRING_ADDR',
  [VHOST_USER_SET_VRING_BASE]: 'SET_VRING_BASE',
  [VHOST_USER_GET_VRING_BASE]: 'GET_VRING_BASE',
  [VHOST_USER_SET_VRING_KICK]: 'SET_VRING_KICK',
  [VHOST_USER_SET_VRING_CALL]: 'SET_VRING_CALL',
  [VHOST_USER_SET_VRING_ERR]: 'SET_VRING_ERR',
  [VHOST_USER_GET_PROTOCOL_FEATURES]: 'GET_PROTOCOL_FEATURES',
  [VHOST_USER_SET_PROTOCOL_FEATURES]: 'SET_PROTOCOL_FEATURES',
  [VHOST_USER_GET_QUEUE_NUM]: 'GET_QUEUE_NUM',
  [VHOST_USER_SET_VRING_ENABLE]: 'SET_VRING_ENABLE',
  [VHOST_USER_SET_BACKEND_REQ_FD]: 'SET_BACKEND_REQ_FD',
  [VHOST_USER_GET_CONFIG]: 'GET_CONFIG',
  [VHOST_USER_SET_CONFIG]: 'SET_CONFIG',
  [VHOST_USER_GET_INFLIGHT_FD]: 'GET_INFLIGHT_FD',
  [VHOST_USER_SET_INFLIGHT_FD]: 'SET_INFLIGHT_FD',
  [VHOST_USER_RESET_DEVICE]: 'RESET_DEVICE',
  [VHOST_USER_GET_MAX_MEM_SLOTS]: 'GET_MAX_MEM_SLOTS',
  [VHOST_USER_ADD_MEM_REG]: 'ADD_MEM_REG',
  [VHOST_USER_REM_MEM_REG]: 'REM_MEM_REG',
  [VHOST_USER_SET_STATUS]: 'SET_STATUS',
  [VHOST_USER_GET_STATUS]: 'GET_STATUS',
}

/** The spec's name of a front-end message, VHOST_USER_ left off, or its number. */
export function requestName(request: number): string {
  return REQUEST_NAMES[request] ?? `request ${request}`
}
