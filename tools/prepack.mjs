// Before `npm pack`: what an earlier build left behind without a source is removed; and of the packages that travel in
// ours only their sources go along, since what was built of them here is for this machine.
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** Compiled folders, and where their sources lie. */
const COMPILED = {
  'dist/backends': 'backends',
  'dist/server': 'server',
  'protocol/nbd/dist': 'protocol/nbd',
  'protocol/vhost-user/dist': 'protocol/vhost-user',
}

/** npm asks a bundled package only for the `files` of its package.json, which these do not have. */
const FILES = { 'fs-ext': ['binding.gyp', 'fs-ext.cc', 'fs-ext.js'], nan: ['*.h', 'include_dirs.js'] }

for (const [compiled, sources] of Object.entries(COMPILED)) {
  if (!existsSync(join(root, compiled))) continue
  for (const name of readdirSync(join(root, compiled), { recursive: true })) {
    const source = name.replace(/(?:\.d\.ts|\.js\.map|\.js)$/, '.ts')
    if (source !== name && !existsSync(join(root, sources, source))) rmSync(join(root, compiled, name))
  }
}

for (const [name, files] of Object.entries(FILES)) {
  const path = join(root, 'node_modules', name, 'package.json')
  const manifest = JSON.parse(readFileSync(path, 'utf8'))
  // At once, since somebody may be loading the package; and always, since npm looks into package.json only where the folder
  // is newer than node_modules/.package-lock.json, which knows of no `files`.
  writeFileSync(`${path}.new`, `${JSON.stringify({ ...manifest, files }, undefined, 2)}\n`)
  renameSync(`${path}.new`, path)
}
