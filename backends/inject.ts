// Fault injection by rules in words, for people who test their guests: `write:ENOSPC@1G-2G`, `read:EIO,rate=0.01`,
// `flush:EIO,count=1`, `write:delay=2s`, `write:short=512`. A rule becomes part of a FaultPlan.
import { EIO, errnoNumber } from './errno.js'
import type { Fault, FaultableCommand, FaultPlan, Operation } from './fault.js'
import { DONE, type Outcome, SYNC_FAILED, WOULD_BLOCK } from './outcome.js'

export interface InjectionRule {
  /** As it was given. */
  readonly text: string
  readonly command: FaultableCommand | 'any'
  /** 0: only the delay. */
  readonly errno: number
  /** Bytes of the export that a request has to touch; end exclusive. */
  readonly start: number
  readonly end: number
  /** Of the requests that match, how many are hit: 0 to 1. */
  readonly rate: number
  /** Hits after which the rule rests. */
  readonly countMax: number
  readonly delayMs: number
  /** Bytes of a read or write that are transferred before it fails. */
  readonly short: number
}

const COMMANDS: readonly string[] = ['read', 'write', 'zero', 'trim', 'flush', 'cache', 'any']

/** How the words in a rule are read; both throw an Error whose message is a sentence. */
export interface RuleWords {
  readonly size: (text: string, what: string) => number
  readonly time: (text: string, what: string) => number
}

const GRAMMAR = 'write COMMAND:ERRNO[@FROM-TO][,rate=0.1][,count=5][,delay=2s][,short=512], such as write:ENOSPC@1G-2G'

function refuse(text: string, why: string): Error {
  return new Error(`the injection rule '${text}' ${why}: ${GRAMMAR}`)
}

/** @throws Error with a sentence that names the rule and what is wrong with it */
export function parseInjection(text: string, words: RuleWords): InjectionRule {
  const [, command = '', effects = ''] = /^([a-z]+):(.+)$/.exec(text) ?? []
  if (!COMMANDS.includes(command)) throw refuse(text, `names no command (${COMMANDS.join(', ')})`)
  const rule = { errno: 0, start: 0, end: Number.MAX_SAFE_INTEGER, rate: 1, countMax: Infinity, delayMs: 0, short: 0 }
  for (const part of effects.split(',')) {
    const [, key, value = ''] = /^(rate|count|delay|short)=(.+)$/.exec(part) ?? []
    if (key === 'rate') rule.rate = inside(Number(value), 0, 1, text, 'has a rate that is not from 0 to 1')
    else if (key === 'count') rule.countMax = inside(Number(value), 1, 2 ** 53, text, 'has a count that is none')
    else if (key === 'delay') rule.delayMs = words.time(value, `the delay of '${text}'`)
    else if (key === 'short') rule.short = words.size(value, `the short transfer of '${text}'`)
    else Object.assign(rule, errnoAndRange(part, text, words))
  }
  if (rule.short > 0 && rule.errno === 0) rule.errno = EIO
  if (rule.errno === 0 && rule.delayMs === 0) throw refuse(text, 'has no effect')
  return { text, command: command as InjectionRule['command'], ...rule }
}

function inside(value: number, least: number, most: number, text: string, why: string): number {
  if (value >= least && value <= most) return value
  throw refuse(text, why)
}

function errnoAndRange(part: string, text: string, words: RuleWords): { errno?: number; start?: number; end?: number } {
  const [, name = '', from, to] = /^([A-Z0-9]*)(?:@([^-]+)-(.+))?$/.exec(part) ?? []
  const errno = name === '' ? undefined : errnoNumber(name)
  if (name !== '' && errno === undefined) throw refuse(text, `names '${name}', which is no errno`)
  if (name === '' && from === undefined) throw refuse(text, `has '${part}', which means nothing`)
  if (from === undefined || to === undefined) return { ...(errno !== undefined && { errno }) }
  const range = { start: words.size(from, `the range of '${text}'`), end: words.size(to, `the range of '${text}'`) }
  if (range.end <= range.start) throw refuse(text, 'has a range that ends before it begins')
  return { ...(errno !== undefined && { errno }), ...range }
}

/** The rules as a plan. `onHit` hears of every fault, and of the rule that made it; `random` gives numbers from 0 to 1. */
export function injectionPlan(
  rules: readonly InjectionRule[],
  onHit: (rule: InjectionRule) => void,
  random = Math.random,
): FaultPlan {
  const hits = new Map(rules.map((rule) => [rule, 0]))
  return (operation) => {
    if (operation.command === 'probe') return undefined
    const rule = rules.find((each) => matches(each, operation) && (hits.get(each) ?? 0) < each.countMax)
    if (rule === undefined || (rule.rate < 1 && random() >= rule.rate)) return undefined
    // What has to wait first is left to the waiting twin, which can.
    if (operation.now && rule.delayMs > 0) return { outcome: WOULD_BLOCK }
    hits.set(rule, (hits.get(rule) ?? 0) + 1)
    onHit(rule)
    return faultOf(rule, operation)
  }
}

function matches({ command, start, end }: InjectionRule, operation: Operation): boolean {
  if (command !== 'any' && command !== operation.command) return false
  // A flush has no place, so that a rule with a range never hits it.
  if (operation.command === 'flush') return start === 0 && end === Number.MAX_SAFE_INTEGER
  return operation.offset < end && start < operation.offset + operation.length
}

function faultOf({ errno, delayMs, short }: InjectionRule, { command, length }: Operation): Fault {
  const outcome: Outcome = errno === 0 ? DONE : command === 'flush' ? errno | SYNC_FAILED : errno
  return { outcome, transferred: Math.min(short, length), ...(delayMs > 0 && { delayMs }) }
}
