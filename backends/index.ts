// The only list of storage kinds, and the only door of this folder besides backend.ts.
import type { Backend } from './backend.js'
import { openMemory } from './memory.js'
import type { ImageOptions, OpenedImage } from './sparse-file/open-image.js'
import { openSparseFile, type ServingOptions, sparseFileOn } from './sparse-file/sparse-file.js'

/** What each kind of backend needs to be opened. */
export interface BackendOptions {
  readonly 'sparse-file': ImageOptions
  /** An image that `openImage` opened and locked, perhaps in another thread; it is the backend's from here on. */
  readonly 'opened-image': { readonly image: OpenedImage } & ServingOptions
  /** `size` in bytes. */
  readonly memory: { readonly size: number }
}

const KINDS: { readonly [Kind in keyof BackendOptions]: (options: BackendOptions[Kind]) => Promise<Backend> } = {
  'sparse-file': openSparseFile,
  'opened-image': async ({ image, ...how }) => sparseFileOn(image, how),
  memory: async ({ size }) => openMemory(size),
}

/** Opens storage of a kind. @throws OpenError with one sentence for the operator */
export function openBackend<Kind extends keyof BackendOptions>(
  kind: Kind,
  options: BackendOptions[Kind],
): Promise<Backend> {
  return KINDS[kind](options)
}

export type {
  Backend,
  BackingSpace,
  Capabilities,
  Condition,
  Extent,
  Space,
  SparseRead,
  TakeBuffer,
} from './backend.js'
export { OpenError, ZERO_FAST, ZERO_PUNCH } from './backend.js'
export { withZeroDetection } from './detect-zeroes.js'
export * from './errno.js'
export { type Fault, type FaultPlan, type Operation, withFaults } from './fault.js'
export { type InjectionRule, injectionPlan, parseInjection } from './inject.js'
export {
  eventFd,
  FdSocket,
  type FdSocketEvents,
  MESSAGE_FDS_MAX,
  UNSENT_FDS_MAX,
  UnusableDescriptor,
} from './native/fd-socket.js'
export {
  becomeIoFlusher,
  closeForeign,
  duplicateDescriptor,
  endAtOnce,
  hungUp,
  isListening,
  isMemoryFile,
  isOwnEnd,
  NoDescriptorError,
  sendDatagram,
  socketPair,
  unreadTail,
} from './native/file-io.js'
export { type ChosenEngine, chooseIoEngine, IO_ENGINES, type IoEngineWish } from './native/io-engine.js'
export type { IoData, IoVector } from './native/io-vector.js'
export { pagePipe } from './native/page-pipe.js'
export { type ProcessDoor, processDoor } from './native/process-door.js'
export { LINE_BYTES, socketIo } from './native/socket-io.js'
export { TLS_1_2, TLS_1_3, type TlsContext, type TlsSettings, TlsTunnels, tlsContext } from './native/tls.js'
export {
  MEMORY_REGIONS_MAX,
  type MemoryRegion,
  memoryFile,
  type RegionName,
  VhostMemory,
} from './native/vhost-memory.js'
export * from './native/vhost-queue.js'
export * from './outcome.js'
export type { Reopen } from './sparse-file/held-image.js'
export { lockFile } from './sparse-file/image-lock.js'
export {
  closeImage,
  createImage,
  type ImageOptions,
  type OpenedImage,
  openImage,
  reopenImage,
} from './sparse-file/open-image.js'
export { type Storage, storageBackend } from './storage-backend.js'
