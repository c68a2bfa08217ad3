// The QEMU process under a guest: its command line, its channels, its end.
// Law: it never outlives the test process, whichever way that ends.
import { type ChildProcess, spawn } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SCRIPT_NAME } from './guest-initramfs.js'
import { acceptQmp, type Qmp } from './guest-qmp.js'
import { type GuestParts, guestParts } from './guest-requirements.js'
import { findTool, requireTool } from './guest-tools.js'

export interface MachineOptions {
  readonly script: string
  readonly qemuArguments: readonly string[]
  readonly memoryMiB: number
}

const running = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

/** Emits 'output' when the script has said more. */
export class Machine extends EventEmitter {
  /** The kernel's messages, the script's errors and trace, and QEMU's own complaints, as far as they have come. */
  console = ''
  /** What the script has written to its standard output so far. */
  output = ''
  readonly qmp: Promise<Qmp>
  /** Settles when the process is gone and all that it had said is in the texts above. */
  readonly ended: Promise<void>
  readonly #child: ChildProcess
  readonly #port: Promise<Socket>

  private constructor(child: ChildProcess, port: Server, control: Server) {
    super()
    this.#child = child
    const gone = new AbortController()
    const closed = once(child, 'close').finally(() => gone.abort())
    this.#port = this.#acceptPort(port, gone.signal)
    this.qmp = acceptQmp(control, gone.signal)
    // Nobody may be waiting for a channel when QEMU dies before opening it; who asks later still gets the error.
    for (const channel of [this.#port, this.qmp]) channel.catch(() => undefined)
    this.ended = this.#waitForEnd(closed)
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('latin1').on('data', (text: string) => {
        this.console += text.replaceAll('\r', '')
      })
    }
  }

  static async start(options: MachineOptions): Promise<Machine> {
    const parts = guestParts()
    const folder = mkdtempSync(join(tmpdir(), 'candor-guest-'))
    writeFileSync(join(folder, 'script'), options.script)
    const port = createServer().listen(join(folder, 'port.sock'))
    const control = createServer().listen(join(folder, 'qmp.sock'))
    await Promise.all([once(port, 'listening'), once(control, 'listening')])
    const child = spawnQemu(commandLine(parts, folder, options))
    const machine = new Machine(child, port, control)
    const cleanUp = (): void => {
      port.close()
      control.close()
      rmSync(folder, { recursive: true, force: true })
    }
    machine.ended.then(cleanUp, cleanUp)
    return machine
  }

  /** Gives the script's standard input a line. */
  async send(line: string): Promise<void> {
    const port = await this.#port
    port.write(`${line}\n`)
  }

  /** Pulls the plug. */
  kill(): void {
    this.#child.kill('SIGKILL')
  }

  async #acceptPort(server: Server, signal: AbortSignal): Promise<Socket> {
    const [socket] = (await once(server, 'connection', { signal })) as [Socket]
    socket.setEncoding('utf8').on('data', (text: string) => {
      this.output += text
      this.emit('output')
    })
    // A killed QEMU may reset the connection: its end is seen through the process.
    socket.on('error', () => undefined)
    return socket
  }

  async #waitForEnd(closed: Promise<unknown>): Promise<void> {
    await closed
    const port = await this.#port.catch(() => undefined)
    if (port !== undefined && !port.closed) await once(port, 'close')
  }
}

function commandLine(parts: GuestParts, folder: string, options: MachineOptions): string[] {
  return [
    ['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
    ['-machine', 'pc', '-accel', 'tcg', '-cpu', 'max', '-m', String(options.memoryMiB)],
    ['-kernel', parts.kernelImage, '-initrd', parts.initramfs],
    // A panic reboots at once, which -no-reboot turns into the end of QEMU: nobody waits for a dead guest. On a busy host
    // the emulated timer comes too late for the kernel's check of it, which is a panic too.
    ['-append', 'console=ttyS0 panic=-1 no_timer_check'],
    ['-fw_cfg', `name=${SCRIPT_NAME},file=${join(folder, 'script')}`],
    ['-chardev', 'stdio,id=console,signal=off', '-serial', 'chardev:console'],
    ['-chardev', `socket,id=port,path=${join(folder, 'port.sock')}`],
    ['-device', 'virtio-serial-pci', '-device', 'virtserialport,chardev=port'],
    ['-chardev', `socket,id=qmp,path=${join(folder, 'qmp.sock')}`, '-mon', 'chardev=qmp,mode=control'],
    ['-nic', 'user,model=virtio-net-pci'],
    options.qemuArguments,
  ].flat()
}

/** Not even a test process that is killed without a chance to clean up leaves QEMU behind, where setpriv exists. */
function spawnQemu(qemuArguments: readonly string[]): ChildProcess {
  const setpriv = findTool('setpriv')
  const prefix = setpriv === undefined ? [] : [setpriv, '--pdeathsig', 'KILL', '--']
  const [program = '', ...rest] = [...prefix, requireTool('qemu-system-x86_64'), ...qemuArguments]
  const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'pipe'] })
  running.add(child)
  child.on('close', () => running.delete(child))
  return child
}
