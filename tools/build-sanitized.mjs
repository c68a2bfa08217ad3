// Builds the addon with AddressSanitizer and UndefinedBehaviorSanitizer, in a copy of the built project beside it, so that
// the ordinary build stays what it is. Usage: build-sanitized.mjs [FOLDER [again]] (default .cache/sanitized); `again` only
// compiles what changed in the copy. Prints the folder. Run programs from there under LD_PRELOAD of gcc's libasan.
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, rmSync, symlinkSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const FLAGS = '-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1'

const root = fileURLToPath(new URL('..', import.meta.url))
const home = resolve(process.argv[2] ?? join(root, '.cache/sanitized'))
const native = join(home, 'backends/native')

const again = process.argv[3] === 'again'

if (!again) {
  rmSync(join(home, 'dist'), { recursive: true, force: true })
  rmSync(native, { recursive: true, force: true })
  mkdirSync(native, { recursive: true })
  cpSync(join(root, 'dist'), join(home, 'dist'), { recursive: true })
  cpSync(join(root, 'package.json'), join(home, 'package.json'))
  // Some of what is served and run lies beside its sources and is not compiled: the status page, Python clients.
  for (const part of ['server', 'test', 'bench']) cpSync(join(root, part), join(home, part), { recursive: true })
  cpSync(join(root, 'backends/native'), native, { recursive: true, filter: (path) => basename(path) !== 'build' })
  if (!existsSync(join(home, 'node_modules'))) symlinkSync(join(root, 'node_modules'), join(home, 'node_modules'))
}

const env = { ...process.env, CFLAGS: FLAGS, LDFLAGS: '-fsanitize=address,undefined' }
const nodeGyp = join(root, 'node_modules/.bin/node-gyp')
execFileSync(nodeGyp, [again ? 'build' : 'rebuild', '-C', native], { env, stdio: ['ignore', 'ignore', 'inherit'] })
process.stdout.write(`${home}\n`)
