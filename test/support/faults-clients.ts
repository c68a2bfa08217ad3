// Other people's clients, kept on one connection while the storage under the server changes: qemu-io, and libnbd from
// Python. Law: what a request came to is the client's own word.
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import type { Scope } from './faults.js'
import { needs } from './requirements.js'

/** What became of one request; `errno` is a name such as ENOSPC, undefined after success. */
export interface Written {
  readonly offset: number
  readonly length: number
  readonly errno: string | undefined
}

export interface WritingClient {
  /** Writes [start, end) in requests of `length` bytes, one round after another. */
  write(start: number, end: number, length: number, round?: number): Promise<readonly Written[]>
  /** FLUSH; undefined after success. */
  flush(): Promise<string | undefined>
}

const PYTHON = '/usr/bin/python3'

/** Debian's own Python is the one that has the module. @throws where CI is set */
export function needsLibnbd(): string | false {
  const reason = needs(PYTHON)
  if (reason !== false) return reason
  if (spawnSync(PYTHON, ['-c', 'import nbd'], { stdio: 'ignore' }).status === 0) return false
  return needs('python3-libnbd')
}

/** Questions to a child's standard input, and its answers. */
class Conversation {
  readonly #child: ChildProcessWithoutNullStreams
  #output = ''
  #errors = ''
  #arrived = () => {}

  constructor(scope: Scope, program: string, args: readonly string[]) {
    this.#child = spawn(program, args)
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#output += text
      this.#arrived()
    })
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#errors += text
    })
    const closed = once(this.#child, 'close').then(() => this.#arrived())
    scope.after(async () => {
      this.#child.kill('SIGKILL')
      await closed
    })
  }

  /** Sends and resolves with what comes until `end`, which is left off. @throws when the child ends before */
  async ask(question: string, end: string): Promise<string> {
    if (question !== '') this.#child.stdin.write(question)
    while (!this.#output.includes(end)) {
      if (this.#child.exitCode !== null) throw new Error(`the client ended: ${this.#output}${this.#errors}`)
      await new Promise<void>((resolve) => {
        this.#arrived = resolve
      })
    }
    const at = this.#output.indexOf(end)
    const answer = this.#output.slice(0, at)
    this.#output = this.#output.slice(at + end.length)
    return answer
  }
}

const QEMU_PROMPT = 'qemu-io> '
const QEMU_WORDS: Readonly<Record<string, string>> = {
  'No space left on device': 'ENOSPC',
  'Input/output error': 'EIO',
}

/** Which byte qemu-io fills a request with. */
export function qemuPattern(offset: number, round = 0): number {
  return 1 + ((offset / 512 + round * 101) % 251)
}

/** qemu-io, one request after the other: it forgets lines that it read together with others. */
export async function startQemuIo(scope: Scope, uri: string): Promise<WritingClient> {
  const talk = new Conversation(scope, 'qemu-io', ['-f', 'raw', uri])
  await talk.ask('', QEMU_PROMPT)
  return {
    write: async (start, end, length, round = 0) => {
      const results: Written[] = []
      for (let offset = start; offset + length <= end; offset += length) {
        const answer = await talk.ask(`write -P ${qemuPattern(offset, round)} ${offset} ${length}\n`, QEMU_PROMPT)
        results.push({ offset, length, errno: qemuErrno(answer, offset, length) })
      }
      return results
    },
    flush: async () => (await talk.ask('flush\n', QEMU_PROMPT)) || undefined,
  }
}

function qemuErrno(answer: string, offset: number, length: number): string | undefined {
  if (answer.includes(`wrote ${length}/${length} bytes at offset ${offset}\n`)) return undefined
  const reason = /write failed: (.*)/.exec(answer)?.[1]
  if (reason === undefined) throw new Error(`qemu-io said ${JSON.stringify(answer)} of the write at ${offset}`)
  return QEMU_WORDS[reason] ?? reason
}

// Keeps `depth` requests in flight, notes each one's errno, and answers a line of JSON for each line it is told. The
// content is that of stamped() in faults.ts.
const LIBNBD_SCRIPT = `
import errno, json, nbd, struct, sys
depth = int(sys.argv[2])
h = nbd.NBD()
h.connect_uri(sys.argv[1])
print(json.dumps(h.get_size()), flush=True)

def stamped(offset, length, round):
    pages = (struct.pack('>QQ', offset + at, round) * (min(4096, length - at) // 16) for at in range(0, length, 4096))
    return b''.join(pages)

def write(start, end, length, round):
    results = []
    for offset in range(start, end, length):
        while h.aio_in_flight() >= depth:
            h.poll(-1)
        def done(error, offset=offset):
            value = error if isinstance(error, int) else error.value
            results.append([offset, errno.errorcode[value] if value else None])
            return 1
        h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(stamped(offset, length, round))), offset, done)
    while h.aio_in_flight() > 0:
        h.poll(-1)
    return sorted(results)

def flush():
    try:
        h.flush()
        return None
    except nbd.Error as error:
        return error.errno

for line in sys.stdin:
    name, *arguments = json.loads(line)
    print(json.dumps({'write': write, 'flush': flush}[name](*arguments)), flush=True)
`

/** libnbd from Python with `depth` requests in flight. */
export async function startLibnbd(scope: Scope, uri: string, depth: number): Promise<WritingClient> {
  const talk = new Conversation(scope, PYTHON, ['-c', LIBNBD_SCRIPT, uri, String(depth)])
  await talk.ask('', '\n')
  const call = async (...words: readonly unknown[]): Promise<unknown> =>
    JSON.parse(await talk.ask(`${JSON.stringify(words)}\n`, '\n'))
  return {
    write: async (start, end, length, round = 0) => {
      const results = (await call('write', start, end, length, round)) as [number, string | null][]
      return results.map(([offset, errno]) => ({ offset, length, errno: errno ?? undefined }))
    },
    flush: async () => ((await call('flush')) as string | null) ?? undefined,
  }
}
