// PR_SET_IO_FLUSHER where it is allowed: candor itself in a guest, whose root has every capability, which the host's may not.
// An emulated processor takes a minute to start Node, so that this belongs to `./test/run --all`.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { copyFileSync, cpSync, mkdirSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { bootGuest, skipWithoutGuests } from '../support/guest.js'
import { scratchFolder } from '../support/guest-images.js'
import { onlyUnderAll } from '../support/requirements.js'

const root = fileURLToPath(new URL('../../..', import.meta.url))
/** PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE (linux/sched.h). */
const FLUSHER = 0x0018_0000
/** What candor runs with; of the packages, those that building and testing need stay out. */
const PARTS = ['dist/backends', 'dist/server', 'protocol', 'server/observe/page', 'package.json']
const ADDON = 'backends/native/build/Release/file_io.node'
const LEFT_OUT = /^(?:typescript|@typescript|@biomejs|@types|playwright-core|axe-core|nan|\..*)$/

/** Node with its libraries, and candor, as a disk of ext4. */
function diskWithCandor(folder: string): string {
  const system = join(folder, 'root')
  for (const name of ['bin', 'proc', 'dev', 'tmp', dirname(`candor/${ADDON}`)])
    mkdirSync(join(system, name), { recursive: true })
  copyFileSync(process.execPath, join(system, 'bin/node'))
  for (const [library] of execFileSync('ldd', [process.execPath], { encoding: 'utf8' }).matchAll(/\/\S+/g)) {
    mkdirSync(join(system, dirname(library)), { recursive: true })
    copyFileSync(library, join(system, library))
  }
  const keep = { recursive: true, verbatimSymlinks: true }
  for (const part of PARTS) cpSync(join(root, part), join(system, 'candor', part), keep)
  copyFileSync(join(root, ADDON), join(system, 'candor', ADDON))
  for (const name of readdirSync(join(root, 'node_modules')).filter((each) => !LEFT_OUT.test(each))) {
    cpSync(join(root, 'node_modules', name), join(system, 'candor/node_modules', name), keep)
  }
  const disk = join(folder, 'disk.ext4')
  execFileSync('mkfs.ext4', ['-q', '-d', system, disk, '600M'])
  return disk
}

const SCRIPT = `
  mkdir /candor
  mount -t ext4 /dev/vda /candor
  mount -t proc proc /candor/proc
  mount -t devtmpfs dev /candor/dev
  set +x
  chroot /candor /bin/node /candor/dist/server/main.js serve /tmp/d.img --create 8M --listen unix:/tmp/s --http off \
    --state-dir none --io-engine pool >/candor/tmp/log 2>&1 &
  until grep -q ^ready /candor/tmp/log; do kill -0 $! || { cat /candor/tmp/log; exit 1; }; sleep 1; done
  cat /candor/tmp/log
  for stat in /proc/$!/task/*/stat; do echo "flags: $(sed 's/.*) //' $stat | cut -d' ' -f7)"; done
`

test('the main thread and all that do I/O are out of the circle, and the log says so', {
  skip: onlyUnderAll() || skipWithoutGuests(),
}, async (scope) => {
  const disk = diskWithCandor(scratchFolder(scope))
  const qemuArguments = ['-smp', '2', '-drive', `if=virtio,format=raw,file=${disk}`]
  const { status, output } = await bootGuest({ qemuArguments, memoryMiB: 1500, timeoutMs: 600_000, script: SCRIPT })
  assert.equal(status, 0, output)
  assert.match(output, /"msg":"short memory makes no thread of candor wait/)
  const flags = [...output.matchAll(/^flags: (\d+)$/gm)].map((match) => (Number(match[1]) & FLUSHER) === FLUSHER)
  assert.equal(flags[0], true, 'the main thread')
  assert.ok(flags.filter((isFlusher) => isFlusher).length >= 3, `${flags}: the I/O thread and one of its pool besides`)
})
