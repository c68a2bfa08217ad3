// What the main thread and an I/O thread say to each other.
import type { OpenedImage } from '../../backends/index.js'
import type { ExportConfig } from '../config.js'
import type { ControlRequest } from '../control/export-actions.js'
import type { MovedExport } from '../exports/open-export.js'
import type { Limits } from '../limits.js'
import type { MovedConnection } from '../nbd/moved.js'
import type { PayloadHeld } from '../nbd/payload-budget.js'
import type { BackingShare } from '../observe/backing-block.js'
import type { Counters } from '../observe/counters.js'
import type { LogLine } from '../observe/log.js'
import type { AttachOrder, EndedFault, RemovalKind, VhostUserOrder } from './io-host.js'

/** What an I/O thread starts with. */
export interface IoThreadData {
  readonly limits: Limits
  readonly stateDirectory: string | undefined
  readonly pulse: Counters
  readonly payloadHeld: PayloadHeld
}

/** Questions of which each is answered once. */
export type Call =
  | {
      readonly name: 'open'
      readonly config: ExportConfig
      readonly image: OpenedImage
      readonly share: BackingShare | undefined
      readonly moved: MovedExport | undefined
    }
  | { readonly name: 'settle' | 'freeze'; readonly timeoutMs: number }
  | { readonly name: 'goOn'; readonly handedOver: readonly MovedConnection[] }
  | { readonly name: 'abandon' }
  | { readonly name: 'ask'; readonly request: ControlRequest }
  | { readonly name: 'remove'; readonly exportName: string; readonly how: RemovalKind; readonly timeoutMs: number }
  | { readonly name: 'finish'; readonly timeoutMs: number }
  | { readonly name: 'sync' }
  | { readonly name: 'close' }

export type ToThread =
  | { readonly kind: 'call'; readonly id: number; readonly call: Call }
  | { readonly kind: 'attach'; readonly order: AttachOrder }
  | { readonly kind: 'disconnect'; readonly connection: number }
  | { readonly kind: 'attach-vhost-user'; readonly order: VhostUserOrder }
  | { readonly kind: 'drain' }
  /** What became of the image that the thread wants open again: itself, or an OpenError's sentence. */
  | { readonly kind: 'reopened'; readonly id: number; readonly image: OpenedImage | string }

export type FromThread =
  | { readonly kind: 'answer'; readonly id: number; readonly value: unknown }
  /** An OpenError's sentence. */
  | { readonly kind: 'refusal'; readonly id: number; readonly sentence: string }
  | { readonly kind: 'faulted'; readonly connection: number; readonly fault: EndedFault }
  | { readonly kind: 'ended'; readonly connection: number }
  | { readonly kind: 'resized'; readonly exportName: string; readonly size: number }
  /** An image is held by another descriptor than before. */
  | { readonly kind: 'held-anew'; readonly exportName: string; readonly fd: number }
  /** Images are opened in the main thread alone. */
  | { readonly kind: 'reopen'; readonly id: number; readonly path: string; readonly readOnly: boolean }
  | { readonly kind: 'log'; readonly line: LogLine }
