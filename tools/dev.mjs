// `npm run dev`: compiles as files change, and serves a temporary image that is gone afterwards.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const folder = mkdtempSync(join(tmpdir(), 'candor-dev-'))
const image = ['serve', join(folder, 'dev.img'), '--create', '1G', '--state-dir', folder, '--log-level', 'debug']
const children = [
  spawn('npx', ['tsc', '-b', '--watch', '--preserveWatchOutput'], { stdio: 'inherit' }),
  spawn(process.execPath, ['--watch', 'dist/server/main.js', ...image, ...process.argv.slice(2)], { stdio: 'inherit' }),
]

function stop() {
  for (const child of children) child.kill()
  rmSync(folder, { recursive: true, force: true })
  process.exit(0)
}

process.on('SIGINT', stop).on('SIGTERM', stop)
