#!/usr/bin/env node
// Stands in front of npm's own node-gyp for every native build of an install, fs-ext's included. Its two duties:
// say in one sentence what is missing of a toolchain, and build against the headers that Node's official
// distributions bring along, so that an install asks no host but the package registry.
'use strict'
const { spawnSync } = require('node:child_process')
const { existsSync } = require('node:fs')
const { dirname, join, resolve } = require('node:path')

const TOOLS = { make: ['make'], 'g++': ['g++', 'c++', 'clang++'], python3: ['python3', 'python'] }

function runs(program) {
  return spawnSync(program, ['--version'], { stdio: 'ignore' }).error === undefined
}

function missingPackages() {
  return Object.entries(TOOLS)
    .filter(([, programs]) => !programs.some(runs))
    .map(([name]) => name)
}

/** The prefix that holds include/node/node_api.h for this very Node, or undefined. */
function nodeDirectory() {
  const beside = resolve(dirname(process.execPath), '..')
  const candidates = [process.env.npm_config_nodedir, beside, '/usr', '/usr/local']
  return candidates.find((prefix) => prefix && headersFit(prefix))
}

/** Headers of another Node would build an addon that this one cannot load: the major version must agree. */
function headersFit(prefix) {
  const header = join(prefix, 'include/node/node_version.h')
  if (!existsSync(header)) return false
  const major = /#define NODE_MAJOR_VERSION (\d+)/.exec(require('node:fs').readFileSync(header, 'utf8'))
  return major?.[1] === process.versions.node.split('.')[0]
}

/** npm names its own node-gyp in the environment; outside of npm it lies beside npm in Node's prefix. */
function npmNodeGyp() {
  const named = process.env.npm_config_node_gyp
  if (named && existsSync(named)) return named
  const bundled = 'lib/node_modules/npm/node_modules/node-gyp/bin/node-gyp.js'
  const found = [resolve(dirname(process.execPath), '..'), '/usr', '/usr/local']
    .map((prefix) => join(prefix, bundled))
    .find(existsSync)
  return found
}

const missing = missingPackages()
if (missing.length > 0) {
  console.error(
    `candor builds a small native addon and this machine lacks ${missing.join(', ')}: ` +
      `install make, g++ and python3 (Debian and Ubuntu: apt-get install make g++ python3) and try again.`,
  )
  process.exit(1)
}
const nodeGyp = npmNodeGyp()
if (nodeGyp === undefined) {
  console.error("candor found no node-gyp: run this build through npm ('npm run build:native'), which brings one.")
  process.exit(1)
}
const headers = nodeDirectory()
const options = headers === undefined ? [] : [`--nodedir=${headers}`]
const run = spawnSync(process.execPath, [nodeGyp, ...process.argv.slice(2), '--loglevel=warn', ...options], {
  stdio: 'inherit',
  // node-gyp believes the environment before its own arguments, and npm passes its user's configuration there.
  env: { ...process.env, ...(headers !== undefined && { npm_config_nodedir: headers }) },
})
process.exit(run.status ?? 1)
