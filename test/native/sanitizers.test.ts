// The addon under AddressSanitizer and UndefinedBehaviorSanitizer: real work, threads that are ended in the middle of it,
// a server under fio. Law: any report fails the test, and an overflow that is made on purpose is reported.
// Leaks are not looked for: every allocation of the addon has frames of Node above it, whose own leaks at exit are many.
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { temporaryFolder } from '../support/candor.js'
import { needsFuse } from '../support/fuse-disk.js'
import { needs } from '../support/requirements.js'
import { TLS_PROGRAMS } from '../support/tls-material.js'

const BUILD = fileURLToPath(new URL('../../../tools/build-sanitized.mjs', import.meta.url))
const ASAN = spawnSync('gcc', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).stdout?.trim() ?? ''
const skip = needs('gcc', 'make', 'fio') || (isAbsolute(ASAN) ? false : "gcc's libasan is not installed")

const folder = temporaryFolder()
after(() => folder.remove())
const home = join(folder.path, 'home')
const reports = join(folder.path, 'reports')

interface Run {
  readonly code: number | null
  readonly output: string
  /** What the sanitizers wrote of node processes. */
  readonly reports: string
}

async function run(args: readonly string[], env: NodeJS.ProcessEnv): Promise<Omit<Run, 'reports'>> {
  const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'inherit'] })
  const [output, [code]] = await Promise.all([text(child.stdout), once(child, 'close')])
  return { code: code as number | null, output }
}

/** Runs a suite of the sanitized copy; `only` is part of the titles of the tests that run. */
async function suite(path: string, only: string): Promise<Run> {
  const log = join(reports, path.replaceAll('/', '-'))
  const options = `detect_leaks=0:log_exe_name=1:log_path=${log}`
  const env = {
    ...process.env,
    LD_PRELOAD: ASAN,
    ASAN_OPTIONS: options,
    UBSAN_OPTIONS: `print_stacktrace=1:${options}`,
  }
  // Set by the runner of this file: the suite would take itself for a part of it.
  Reflect.deleteProperty(env, 'NODE_TEST_CONTEXT')
  const words = ['--test', '--test-reporter=tap', `--test-name-pattern=${only}`, join(home, 'dist/test', path)]
  const ended = await run(words, env)
  const written = readdirSync(reports).filter((name) => name.includes('.node.'))
  return { ...ended, reports: written.map((name) => readFileSync(join(reports, name), 'utf8')).join('') }
}

describe('under sanitizers', { skip }, () => {
  test('the addon compiles', async () => {
    mkdirSync(reports)
    const { code, output } = await run([BUILD, home], process.env)
    assert.equal(code, 0, output)
  })

  for (const [path, only, without] of [
    ['backends/io-engine.test.js', '.', false],
    ['faults/hung-thread.test.js', '.', needsFuse()],
    ['backends/fd-socket.test.js', '.', false],
    ['backends/fd-socket-bounds.test.js', '.', false],
    ['native/vhost-memory.test.js', '.', false],
    ['native/vhost-queue.test.js', '.', false],
    ['native/vhost-queue-places.test.js', '.', false],
    ['native/vhost-inflight.test.js', '.', false],
    ['native/vhost-hostile.test.js', '.', false],
    ['tls/tunnel.test.js', '.', needs(...TLS_PROGRAMS)],
    ['tls/tunnel-ends.test.js', '.', needs(...TLS_PROGRAMS)],
    ['tls/tunnel-outcomes.test.js', '.', needs(...TLS_PROGRAMS)],
    ['fuzz/vhost-ring.test.js', '.', false],
    ['vhost-user/foreign-descriptors.test.js', '.', needsFuse()],
    ['vhost-user/ring-driver.test.js', 'spoils', false],
    ['interop/fio.test.js', 'Unix socket', false],
    ['interop/libnbd.test.js', '.', false],
  ] as const) {
    test(`${path} finds nothing`, { skip: without }, async () => {
      const { code, output, reports: found } = await suite(path, only)
      assert.equal(found, '')
      assert.equal(code, 0, output)
      assert.match(output, /^# pass [1-9]/m)
    })
  }

  test('a write of eight bytes past a buffer is reported', async () => {
    const source = join(home, 'backends/native/io-extents.c')
    const sound = 'runs.numbers[0] = runs.count;\n  return error;'
    const [before = '', ...rest] = readFileSync(source, 'utf8').split(sound)
    assert.ok(rest.length > 0, 'the place to spoil is gone')
    writeFileSync(source, [before, ...rest].join(`runs.numbers[1 + 2 * runs.limit] = 1;\n  ${sound}`))
    assert.equal((await run([BUILD, home, 'again'], process.env)).code, 0)
    const { code, reports: found } = await suite('backends/sparse-file.test.js', 'extents cover')
    assert.notEqual(code, 0)
    assert.match(found, /heap-buffer-overflow[\s\S]*io_extents/)
  })
})
