// What the process that leaves and the one that takes over tell each other: lines of JSON beside which descriptors travel.
// Law: a number here is raised when an older process would misunderstand what a newer one says.
import type { MovedExport } from '../exports/open-export.js'
import type { ListenAddress } from '../nbd/listen.js'
import type { MovedConnection } from '../nbd/moved.js'
import type { Established, Peer } from '../nbd/negotiation.js'
import type { Sections } from '../observe/counter-sections.js'
import type { HttpAddress } from '../observe/http.js'

export const HAND_OVER_FORMAT = 2
/** Where the process that takes over finds its end of the socket. */
export const UPGRADE_VARIABLE = 'CANDOR_UPGRADE_FD'
export const UPGRADE_FD = 3

/** A client in transmission, as the front desk knows it. */
export interface MovedGuest {
  readonly connection: number
  readonly peer: Peer
  readonly since: number
  readonly exportName: string
}

/** A client whose handshake ended with the process that leaves. */
export interface LateGuest {
  readonly peer: Peer
  readonly since: number
  readonly established: Established
  readonly leftover: Uint8Array
  readonly fd: number
}

/** A listening socket, by what it was asked for. */
export interface MovedListener {
  readonly wanted: ListenAddress
  readonly fd: number
}

/** All of a server. Wherever a key is `fd`, or ends in `Fd`, the number is one of a descriptor. */
export interface MovedServer {
  readonly stateDirectory: string | undefined
  readonly lockFd: number | undefined
  readonly controlFd: number | undefined
  readonly http: (HttpAddress & { readonly fd: number }) | undefined
  /** The other end belongs to a process that waits for the server's end, and is told who the server is. */
  readonly stubFd: number | undefined
  readonly listeners: readonly MovedListener[]
  readonly exports: readonly MovedExport[]
  readonly connections: readonly MovedConnection[]
  readonly guests: readonly MovedGuest[]
  readonly nextConnection: number
  readonly counters: Sections
  readonly pulse: Sections
}

export type ToSuccessor =
  /** Threads are to be started for these, before anybody waits for them. */
  | { readonly kind: 'prepare'; readonly exports: readonly { readonly name: string; readonly device: number }[] }
  /** Descriptors that come beside this line; the first of all is that of a file with everything else in it. */
  | { readonly kind: 'descriptors'; readonly count: number }
  /** That was all. */
  | { readonly kind: 'state' }
  | { readonly kind: 'commit' }
  | { readonly kind: 'late'; readonly guest: Omit<LateGuest, 'fd' | 'leftover'>; readonly leftover: string }
  /** Whoever watches over the service knows who serves now. `stays`: the process waits for the end of the service. */
  | { readonly kind: 'announced'; readonly stays: boolean }
  /** From a process that stays: signals go to the one that it was told of. */
  | { readonly kind: 'noted' }

export type ToPredecessor =
  | { readonly kind: 'hello'; readonly format: number; readonly version: string }
  | { readonly kind: 'refused'; readonly sentence: string }
  | { readonly kind: 'prepared' }
  | { readonly kind: 'ready' }
  | { readonly kind: 'serving' }
  /** To a process that stays: another one serves by now. */
  | { readonly kind: 'successor'; readonly pid: number }
