// What the kernel really answered to a server's writes, as strace saw it.
import { readFileSync } from 'node:fs'

/** One pwrite64 or pwritev2 on the image. */
export interface HostWrite {
  readonly offset: number
  readonly length: number
  /** Bytes that landed. */
  readonly landed: number
  /** A name such as ENOSPC; undefined where something landed. */
  readonly errno: string | undefined
  /** The half of a durable write that syncs (pwritev2 with RWF_DSYNC). */
  readonly durable: boolean
}

/** Runs a program under strace. With -D the tracer is the grandchild, so that signals reach the program itself. */
export function straceInto(file: string): string[] {
  const trace = ['-e', 'trace=pwrite64,pwritev2', '-e', 'signal=none']
  return ['strace', '-D', '-f', '--seccomp-bpf', '-qq', '-y', '-s', '0', ...trace, '-o', file]
}

const CALL = /^(\d+) +(pwrite64|pwritev2)\(\d+<([^>]*)>, (.*)$/
const RESUMED = /^(\d+) +<\.\.\. (?:pwrite64|pwritev2) resumed>(.*)$/
const RESULT = /= (-?\d+)(?: (E\w+))?/

/** The writes on `image` in the order in which they ended. Threads of the pool interleave: a call may take two lines. */
export function readTrace(file: string, image: string): HostWrite[] {
  const unfinished = new Map<string, string>()
  const writes: HostWrite[] = []
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    const [, resumedThread, rest = ''] = RESUMED.exec(line) ?? []
    const whole = resumedThread === undefined ? line : `${unfinished.get(resumedThread) ?? ''}${rest}`
    const [, thread = '', name = '', path, call = ''] = CALL.exec(whole) ?? []
    // The server writes to its state directory too, and such a call may be cut in two as well.
    if (whole.includes('<unfinished ...>')) unfinished.set(thread, whole.replace(/ *<unfinished \.\.\.>/, ''))
    else if (path === image) writes.push(parseCall(name, call))
  }
  return writes
}

// pwrite64: ""..., LENGTH, OFFSET) = RESULT. pwritev2 hides its vector ("-s 0"), so that its length is what landed.
function parseCall(name: string, call: string): HostWrite {
  const result = RESULT.exec(call)
  if (result === null) throw new Error(`strace wrote what cannot be read: ${name}(${call}`)
  const landed = Math.max(0, Number(result[1]))
  const numbers = /^(?:""\.{0,3}|\[.*?\]), (\d+), (\d+)/.exec(call)
  if (numbers === null) throw new Error(`strace wrote what cannot be read: ${name}(${call}`)
  const length = name === 'pwrite64' ? Number(numbers[1]) : landed
  return { offset: Number(numbers[2]), length, landed, errno: result[2], durable: call.includes('RWF_DSYNC') }
}
