// Every command line of README and docs is run as it is written, page by page, or named below with the reason why it cannot be.
import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { manualPage } from '../../server/cli/manual.js'
import { temporaryFolder } from '../support/candor.js'
import { bounded, commandsOf, inBackground, runSteps, type Step } from '../support/doc-commands.js'
import { needsRoot } from '../support/requirements.js'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const PAGES = [
  'README.md',
  ...readdirSync(join(root, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
]

/** Where else it is proved, or why nothing here can. */
const NOT_RUN: readonly (readonly [command: RegExp, reason: string])[] = [
  [/^npm ci && npm start$/, 'npm ci is how every run of the tests begins; start is `candor serve` with a new image'],
  [/^\.\/test\/run/, 'it is what runs this'],
  [/^npm (?:ci|pack|install --global|uninstall --global)\b/, 'test/package packs, installs and runs what it made'],
  [/^apt-get install\b/, 'it would change the host'],
  [
    /^(?:docker|kubectl|cd deploy\/container)\b/,
    'there is no daemon here: test/deploy runs what they would run, by buildah and runc',
  ],
  [/^(?:systemctl (?:daemon-reload|status)|journalctl)\b/, 'no systemd runs here'],
  [/^cp "\$\(npm root --global\)"/, 'it lies there after npm install --global; test/package sees it in the package'],
  [/^cloud-hypervisor\b/, 'Debian has no package of it'],
  [/^candor vhost-user-blk --fd 3/, 'test/vhost-user hands the descriptor over'],
  [/^nbd-client\b/, 'the host kernel may have no nbd driver: test/guest and test/tls run it in a guest that has'],
  [
    /^(?:umount \/srv\/images$|e2fsck -p|mount \/dev\/vg\/images)/,
    'test/faults/release.test.ts does this on file systems that fail',
  ],
  [/^candor ctl (?:release|resume) NAME$/, 'test/faults/release.test.ts, on file systems that fail'],
]

interface Rule {
  readonly command: RegExp
  /** In place of it; $& is all that matched. */
  readonly run?: string
  readonly before?: string
  /** What the page promises that it prints. */
  readonly says?: RegExp
  /** What it ends with the first time, the second time; 0 where nothing is said. */
  readonly codes?: readonly number[]
}

const CONFIGURED = 'candor serve --config /etc/candor/candor.yaml'

/** What a command needs that its page takes for granted, what stands in for what is not here, and what has to fail. */
const RULES: readonly Rule[] = [
  { command: /b=\/dev\/vg\/b/, run: 'b=b.img', before: 'truncate -s 1M a.img b.img' },
  { command: /^npx candor create disk\.img/, before: 'stop_server; rm disk.img' },
  { command: /^npx candor info nbd:\/\/127\.0\.0\.1\/disk\.img/, before: 'start_server candor serve disk.img' },
  { command: /^npx candor ctl release disk\.img$/, run: '$& && candor ctl resume disk.img' },
  {
    command: /^qemu-system-x86_64\b/,
    run: 'echo quit | timeout 20 qemu-system-x86_64 -S -display none -monitor stdio',
  },
  { command: /^qemu-img convert -n -f qcow2/, before: 'qemu-img create -q -f qcow2 old.qcow2 10G' },
  {
    command: /--tls-dir tls\/server --tls-verify-client$/,
    run: '$& --listen unix:/run/candor/nbd',
    before: 'mkdir /run/candor; truncate -s 1M disk.img second.img',
  },
  {
    // Beside the one with certificates, which its page goes on to speak of.
    command: /disk\.img --listen tcp:0\.0\.0\.0:10809 (?=--tls-psk keys\.psk$)/,
    run: 'disk.img=second.img --listen tcp:0.0.0.0:10810 --http off --state-dir second ',
    before: 'server=',
  },
  { command: /alice@localhost:10809/, run: 'alice@localhost:10810' },
  { command: /dir=DIR,username=alice/, run: 'dir=.,username=alice' },
  { command: /^(qemu-img info --object tls-creds-psk[\s\S]*)port=10809/, run: '$1port=10810' },
  { command: /^systemctl enable --now candor$/, run: `start_server ${CONFIGURED}` },
  {
    command: /^candor serve disk\.img --listen vhost-user:/,
    before: 'mkdir /run/candor; truncate -s 1M disk.img a.img b.img',
  },
  {
    command: /-chardev socket,id=disk,path=\/run\/candor\/disk\.sock/,
    before: 'start_server candor serve disk.img --listen vhost-user:/run/candor/disk.sock',
  },
  { command: /^candor ctl upgrade$/, before: 'truncate -s 1M disk.img; start_server candor serve disk.img' },
  // It waits for its guest until it is told to end.
  {
    command: /^(?:npx )?candor vhost-user-blk --socket-path (\S+) --blk-file disk\.img(?: \[--read-only\])?$/,
    run: 'timeout 10 candor vhost-user-blk --socket-path $1 --blk-file disk.img',
    before: 'stop_server; truncate -s 1M disk.img; mkdir -p /run/vm',
    codes: [124],
  },
  { command: /^man candor$/, run: 'MANPATH=$PWD/man $&' },
  { command: /^systemctl reload candor$/, run: 'kill -HUP "$server"' },
  { command: /^systemctl (?:stop|disable --now) candor$/, run: 'stop_server' },
  { command: /'write -P 2 24M 24M' nbd/, codes: [1, 0] },
  { command: /^candor errors small$/, says: /write at 25165824, 24 MiB .*: ENOSPC, 1 request/ },
  { command: /-c flush nbd/, codes: [1] },
  { command: /-c 'read 0 1M'/, codes: [1] },
]

/** A page's commands with what its rules say of each. */
function stepOf(command: string, at: number, page: readonly string[]): Step {
  const times = page.slice(0, at).filter((earlier) => earlier === command).length
  const rules = RULES.filter((rule) => rule.command.test(command))
  const changed = rules.reduce(
    (text, { command: from, run }) => (run === undefined ? text : text.replace(from, run)),
    command,
  )
  return {
    command,
    run: bounded(inBackground(changed)),
    before: rules.map(({ before }) => before).find((words) => words !== undefined),
    says: rules.map(({ says }) => says).find((says) => says !== undefined),
    code: rules.map(({ codes }) => codes?.[times]).find((code) => code !== undefined) ?? 0,
  }
}

const isRun = (command: string) => !NOT_RUN.some(([pattern]) => pattern.test(command))

describe('every command of the documentation', () => {
  const all = PAGES.flatMap((page) => commandsOf(join(root, page)))

  test('is found by the reader of pages, whose tables have no entry that is about none', () => {
    assert.ok(all.length > 60, `${all.length} commands`)
    const patterns = [...NOT_RUN.map(([pattern]) => pattern), ...RULES.map(({ command }) => command)]
    assert.deepEqual(
      patterns.filter((pattern) => !all.some((command) => pattern.test(command))),
      [],
    )
  })

  for (const page of PAGES) {
    const steps = commandsOf(join(root, page)).filter(isRun).map(stepOf)
    if (steps.length === 0) continue
    test(`in ${page} does what it says`, {
      skip: needsRoot(
        'unshare',
        'ip',
        'qemu-io',
        'qemu-img',
        'qemu-system-x86_64',
        'nbdinfo',
        'nbdcopy',
        'openssl',
        'curl',
        'man',
      ),
    }, (t) => {
      const { path, remove } = temporaryFolder()
      t.after(remove)
      mkdirSync(join(path, 'man/man1'), { recursive: true })
      writeFileSync(join(path, 'man/man1/candor.1'), manualPage())
      const { ran, log } = runSteps(path, steps)
      const wrong = ran.filter(({ ended, code, says, output }) => ended !== code || !(says?.test(output) ?? true))
      const told = wrong.map(({ command, run, ended, output }) => ({ command, run, ended, output }))
      assert.deepEqual(told, [], log)
    })
  }
})
