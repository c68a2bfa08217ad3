// The specification's numbers, typed in again from its text: a constant that the product has wrong is found out here.

export const OPT = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  PEEK_EXPORT: 4,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
  EXTENDED_HEADERS: 11,
} as const

export const REP = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x80000001,
  ERR_POLICY: 0x80000002,
  ERR_INVALID: 0x80000003,
  ERR_TLS_REQD: 0x80000005,
  ERR_UNKNOWN: 0x80000006,
  ERR_SHUTDOWN: 0x80000007,
  ERR_TOO_BIG: 0x80000009,
  ERR_EXT_HEADER_REQD: 0x8000000a,
} as const

export const INFO = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const

/** Transmission flags. */
export const HAS = {
  FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  FLUSH: 1 << 2,
  FUA: 1 << 3,
  ROTATIONAL: 1 << 4,
  TRIM: 1 << 5,
  WRITE_ZEROES: 1 << 6,
  DF: 1 << 7,
  MULTI_CONN: 1 << 8,
  RESIZE: 1 << 9,
  CACHE: 1 << 10,
  FAST_ZERO: 1 << 11,
  BLOCK_STATUS_PAYLOAD: 1 << 12,
} as const

export const CMD = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
  RESIZE: 8,
} as const

/** Command flags. */
export const FLAG = {
  FUA: 1 << 0,
  NO_HOLE: 1 << 1,
  DF: 1 << 2,
  REQ_ONE: 1 << 3,
  FAST_ZERO: 1 << 4,
  PAYLOAD_LEN: 1 << 5,
} as const

export const E = { PERM: 1, IO: 5, INVAL: 22, NOSPC: 28, OVERFLOW: 75, NOTSUP: 95, SHUTDOWN: 108 } as const

export const DONE = 1 << 0
export const CHUNK = {
  NONE: 0,
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  BLOCK_STATUS: 5,
  BLOCK_STATUS_EXT: 6,
  ERROR: 0x8001,
  ERROR_OFFSET: 0x8002,
} as const

export const STATE = { HOLE: 1 << 0, ZERO: 1 << 1 } as const

export const MIB = 2 ** 20
export const GIB = 2 ** 30
/** The largest READ and WRITE that candor advertises. */
export const PAYLOAD_MAX = 32 * MIB
