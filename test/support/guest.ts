// Boots a real Linux kernel under QEMU's emulated processor and runs a shell script in it. Law: a boot ends with the
// script's status, with a power cut that was asked for, or with an error that shows what the guest said last.

import { STATUS_MARK } from './guest-initramfs.js'
import { Machine } from './guest-machine.js'

export { guestRequirements, skipWithoutGuests } from './guest-requirements.js'

export interface GuestOptions {
  /**
   * Run by busybox's `sh -eux`: the first command that fails ends it. Standard output becomes `output`; errors and the
   * trace of the commands go to the console. The host is 10.0.2.2. The power goes off without a sync when it ends.
   */
  readonly script: string
  /** Added to QEMU's command line, above all for `-drive` and `-smp`. */
  readonly qemuArguments?: readonly string[]
  readonly memoryMiB?: number
  readonly timeoutMs?: number
}

export interface GuestRun {
  /** The script's exit status; undefined after a power cut. */
  readonly status: number | undefined
  /** What the script wrote to its standard output. */
  readonly output: string
  /** All of the serial console: the kernel's messages, the script's errors and its trace. */
  readonly kernelLog: string
  readonly seconds: number
}

export interface RunningGuest {
  /** Settles when the machine is off; rejects at the time-out, and when the guest ended without a status. */
  readonly finished: Promise<GuestRun>
  /** Waits until what the script has written matches; rejects if the run ends without that. */
  waitForOutput(pattern: RegExp): Promise<RegExpExecArray>
  /** Gives the script a line on its standard input, for `read`. */
  send(line: string): Promise<void>
  /** Kills the machine as if its plug were pulled. Harmless when it is off already, so it serves as a test's clean-up. */
  powerCut(): Promise<void>
  /** Asks QEMU itself, in the commands of its QMP. */
  qmp(command: string, commandArguments?: Record<string, unknown>): Promise<unknown>
}

const DEFAULT_MEMORY_MIB = 512
/** Against guests that hang; a busy host takes several times as long as an idle one. */
const DEFAULT_TIMEOUT_MS = 300_000
const TAIL_LINES = 30

/** Runs the script to its end. */
export async function bootGuest(options: GuestOptions): Promise<GuestRun> {
  const guest = await startGuest(options)
  return guest.finished
}

/** Boots and returns at once, for tests that act while the script runs. */
export async function startGuest(options: GuestOptions): Promise<RunningGuest> {
  const { script, qemuArguments = [], memoryMiB = DEFAULT_MEMORY_MIB, timeoutMs = DEFAULT_TIMEOUT_MS } = options
  const machine = await Machine.start({ script, qemuArguments, memoryMiB })
  const run = new Run(machine, timeoutMs)
  return {
    finished: run.finished,
    waitForOutput: (pattern) => run.waitForOutput(pattern),
    send: (line) => machine.send(line),
    powerCut: () => run.powerCut(),
    qmp: async (command, commandArguments) => (await machine.qmp).execute(command, commandArguments),
  }
}

class Run {
  readonly finished: Promise<GuestRun>
  readonly #machine: Machine
  readonly #started = performance.now()
  /** Why the machine was killed, if it was. */
  #killed: 'power cut' | 'time-out' | undefined

  constructor(machine: Machine, timeoutMs: number) {
    this.#machine = machine
    const timer = setTimeout(() => this.#kill('time-out'), timeoutMs)
    this.finished = machine.ended.finally(() => clearTimeout(timer)).then(() => this.#result(timeoutMs))
    // A test that waits for output or cuts the power need not look at the result as well.
    this.finished.catch(() => undefined)
  }

  async waitForOutput(pattern: RegExp): Promise<RegExpExecArray> {
    const once = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, ''))
    const match = await new Promise<RegExpExecArray | null>((resolve) => {
      const look = (): void => {
        const found = once.exec(this.#machine.output)
        if (found === null) return
        this.#machine.off('output', look)
        resolve(found)
      }
      this.#machine.on('output', look)
      look()
      this.finished.then(
        () => resolve(null),
        () => resolve(null),
      )
    })
    if (match !== null) return match
    await this.finished
    throw new Error(`the guest ended without writing ${pattern}\n${this.#lastWords()}`)
  }

  async powerCut(): Promise<void> {
    this.#kill('power cut')
    await this.#machine.ended
  }

  #kill(reason: 'power cut' | 'time-out'): void {
    this.#killed ??= reason
    this.#machine.kill()
  }

  #result(timeoutMs: number): GuestRun {
    const seconds = (performance.now() - this.#started) / 1000
    const { console: kernelLog, output } = this.#machine
    const ending = new RegExp(`\\n${STATUS_MARK} (\\d+)\\n$`).exec(output)
    if (ending !== null) return { status: Number(ending[1]), output: output.slice(0, ending.index), kernelLog, seconds }
    if (this.#killed === 'power cut') return { status: undefined, output, kernelLog, seconds }
    const what = this.#killed === 'time-out' ? `did not finish within ${timeoutMs} ms` : 'ended without a status'
    throw new Error(`the guest ${what}\n${this.#lastWords()}`)
  }

  #lastWords(): string {
    const { console: log, output } = this.#machine
    return `--- the console's end:\n${tail(log)}\n--- the output's end:\n${tail(output)}`
  }
}

function tail(text: string): string {
  return text.trimEnd().split('\n').slice(-TAIL_LINES).join('\n')
}
