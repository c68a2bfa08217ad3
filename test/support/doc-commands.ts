// The command lines of the documentation, and a place to run them: namespaces of their own with a network, a /run, a /srv, an /etc and a
// state directory that nobody else sees, so that they run as they are written, as root, and leave nothing behind.
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { CANDOR_MAIN } from './candor.js'

const BLOCK = /^( *)```(?:sh|console)\n([\s\S]*?)^\1```/gm
const RUN_TIMEOUT_MS = 300_000
const COMMAND_SECONDS = 60

/** The commands of a page in their order, comments left out; what is continued, quoted over lines or a here-document is one. */
export function commandsOf(path: string): string[] {
  return [...readFileSync(path, 'utf8').matchAll(BLOCK)].flatMap(([, indent = '', block = '']) => {
    const lines = block.split('\n').map((line) => line.slice(indent.length).replace(/^\$ /, ''))
    return joined(lines.map((line) => line.replace(/(?:^|\s+)# .*$/, '')))
  })
}

function joined(lines: readonly string[]): string[] {
  const commands: string[] = []
  let open: string[] = []
  let until: string | undefined
  for (const line of lines) {
    if (open.length === 0 && line.trim() === '') continue
    open.push(line)
    until ??= /<<'?(\w+)'?/.exec(line)?.[1]
    if (until === undefined ? line.endsWith('\\') : line !== until) continue
    commands.push(open.join('\n'))
    open = []
    until = undefined
  }
  return [...commands, ...open]
}

export interface Step {
  /** As the page has it. */
  readonly command: string
  /** What is run in its place; the command itself where nothing is said. */
  readonly run: string
  /** Run before it. */
  readonly before?: string | undefined
  /** What it has to print. */
  readonly says?: RegExp | undefined
  /** The exit code that it has to have. */
  readonly code: number
}

// A server is started in the background and awaited; the next one, or the end, stops it.
const PRELUDE = `
set -u
# A file system that another suite has mounted could not be given back as long as this namespace has it, too.
awk '$2 ~ "^/tmp/candor-" { print $2 }' /proc/mounts | xargs -r umount --lazy
ip link set lo up
for folder in run srv var/lib; do mount -t tmpfs tmpfs /$folder; done
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc
server=
stop_server() {
  if [ -n "$server" ]; then kill "$server" && wait "$server"; fi
  server=
}
start_server() {
  stop_server
  exec {out}< <(exec "$@" 2>>server.log)
  server=$!
  while read -r line <&$out; do case "$line" in ready*) return;; esac; done
  cat server.log
  return 1
}
`

function script(steps: readonly Step[], prepare: string): string {
  const parts = steps.map(
    ({ run, before = ':' }, at) => `${before}\necho "@@ ${at}"\n${run}\nprintf '\\n@@ ${at} ended %s\\n' $?`,
  )
  return `${PRELUDE}\n${prepare}\n${parts.join('\n')}\nstop_server\necho "@@ server $?"\n`
}

export interface Ran extends Step {
  /** undefined when it was not reached. */
  readonly ended: number | undefined
  readonly output: string
}

/** Runs the steps one after the other in one shell. `server` is the exit code of the last server. */
export function runSteps(
  folder: string,
  steps: readonly Step[],
  prepare = '',
): { readonly ran: readonly Ran[]; readonly server: number; readonly log: string } {
  mkdirSync(join(folder, 'bin'))
  const tool = (name: string, text: string) => writeFileSync(join(folder, 'bin', name), text, { mode: 0o755 })
  tool('candor', `#!/bin/sh\nexec ${process.execPath} ${CANDOR_MAIN} "$@"\n`)
  tool('npx', '#!/bin/sh\nexec "$@"\n')
  writeFileSync(join(folder, 'steps'), script(steps, prepare))
  const args = ['--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc', 'bash', '--noprofile', 'steps']
  const { stdout, stderr } = spawnSync('unshare', args, {
    cwd: folder,
    env: { ...process.env, PATH: `${folder}/bin:${process.env['PATH']}`, HOME: folder },
    encoding: 'utf8',
    timeout: RUN_TIMEOUT_MS,
    killSignal: 'SIGKILL',
  })
  const log = `${stdout}\n${stderr}`
  const ran = steps.map((step, at) => {
    const [, output = '', code] = new RegExp(`^@@ ${at}\\n([\\s\\S]*?)^@@ ${at} ended (\\d+)$`, 'm').exec(stdout) ?? []
    return { ...step, output, ended: code === undefined ? undefined : Number(code) }
  })
  return { ran, server: Number(/^@@ server (\d+)$/m.exec(stdout)?.[1] ?? Number.NaN), log }
}

/** A command that is a server of its own, for the background. */
export function inBackground(command: string): string {
  return /^(?:npx )?candor serve\b(?!.*--(?:help|check))/.test(command) ? `start_server ${command}` : command
}

/** Bounded, so that one that waits for ever is named. Shell functions, assignments and built-ins cannot be. */
export function bounded(command: string): string {
  return /^(?:candor|npx|qemu-img|qemu-io|nbdinfo|nbdcopy|curl)\b/.test(command)
    ? `timeout ${COMMAND_SECONDS} ${command}`
    : command
}
