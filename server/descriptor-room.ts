// How many connections the process's limit of open files has room for. Law: clients are turned away before descriptors
// run out, since then the page, the metrics and the operator's socket would be gone as well.
import { readdirSync, readFileSync } from 'node:fs'
import type { Config } from './config.js'
import type { Limits } from './limits.js'
import type { Log } from './observe/log.js'

/** Descriptors that images, threads, the ledger and an operator may still need. */
export const SPARE = 64
/** Two descriptions of an image that an operator releases and resumes. */
export const PER_EXPORT = 2
/** The client's socket, and a second descriptor while it changes threads. */
const PER_CONNECTION = 1
/** The client's socket, and a pair of sockets to the thread of its export. */
const PER_TLS_CONNECTION = 3

export interface DescriptorNeeds {
  readonly exports: number
  readonly httpConnectionsMax: number
  readonly tls: boolean
}

/** RLIMIT_NOFILE of getrlimit(2), the soft one, which Node raises to the hard one as it starts. */
export function openFilesMax(): number {
  const [, soft] = /^Max open files\s+(\d+|unlimited)/m.exec(readFileSync('/proc/self/limits', 'latin1')) ?? []
  return soft === undefined || soft === 'unlimited' ? Number.POSITIVE_INFINITY : Number(soft)
}

export function openFiles(): number {
  return readdirSync('/proc/self/fd').length
}

/** Connections for which there is room beside everything else, at least one. */
export function connectionsWithin(max: number, open: number, needs: DescriptorNeeds): number {
  const others = open + SPARE + needs.exports * PER_EXPORT + needs.httpConnectionsMax
  return Math.max(1, Math.floor((max - others) / (needs.tls ? PER_TLS_CONNECTION : PER_CONNECTION)))
}

/** The limits, with no more connections than the process may open files for. */
export function withinOpenFiles({ limits, exports, tls, http }: Config, log: Log): Limits {
  const httpConnectionsMax = http === undefined ? 0 : limits.httpConnectionsMax
  const needs = { exports: exports.length, httpConnectionsMax, tls: tls.mode !== 'off' }
  const most = openFilesMax()
  const connectionsMax = connectionsWithin(most, openFiles(), needs)
  if (connectionsMax >= limits.connectionsMax) return limits
  const remedy = 'raise the limit (LimitNOFILE= of systemd, ulimit -Hn) or lower --connections-max'
  const sentence = `the limit of ${most} open files has room for ${connectionsMax} connections, not for ${limits.connectionsMax}`
  log.warn({ openFilesMax: most, connectionsMax }, `${sentence}: ${remedy}`)
  return { ...limits, connectionsMax }
}
