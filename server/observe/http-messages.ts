// What the HTTP thread and the thread that started it tell each other.
import type { ControlReply, ControlRequest } from '../control/export-actions.js'
import type { Observed } from './family.js'

/** What the HTTP thread is started with. */
export interface HttpThreadData {
  readonly host: string
  readonly port: number
  /** A socket that listens there already. */
  readonly fd?: number | undefined
  /** Names that a request's Host may carry, besides addresses and localhost. */
  readonly names: readonly string[]
  readonly connectionsMax: number
  readonly watchersMax: number
  readonly observed: Observed
}

export type ToHttp =
  /** Exports came or went. */
  | { readonly kind: 'observed'; readonly observed: Observed }
  | { readonly kind: 'answer'; readonly id: number; readonly reply: ControlReply }

export type FromHttp =
  | { readonly kind: 'listening'; readonly port: number; readonly fd: number }
  | { readonly kind: 'refused'; readonly code: string | undefined; readonly message: string }
  | { readonly kind: 'ask'; readonly id: number; readonly request: ControlRequest }

/** All that may be asked from there: it reads, and changes nothing. */
export const READING_COMMANDS: ReadonlySet<string> = new Set(['exports', 'sessions', 'map', 'errors'])
