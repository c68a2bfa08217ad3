// Builds the guest's only file system: busybox, the host's disk tools with their libraries, and the kernel's modules.
// Law: the script of a test is not in it, so that one archive serves every boot until a tool or the kernel changes.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { type ArchiveEntry, encodeArchive } from './guest-archive.js'
import type { GuestKernel } from './guest-kernel.js'
import { findTool, requireTool } from './guest-tools.js'

/** What a guest cannot do without; debugfs stays on the host, where the tests look into images with it. */
export const GUEST_TOOLS = ['nbd-client', 'mke2fs', 'e2fsck', 'blockdev'] as const
/** Tools that a script may find useful, of which nothing depends on here. */
const OPTIONAL_TOOLS = ['sfdisk', 'fstrim', 'blkdiscard', 'resize2fs', 'dumpe2fs']
const MKE2FS_NAMES = ['mkfs.ext2', 'mkfs.ext3', 'mkfs.ext4']

/** What the kernel must be able to do, in the order of loading; what a module depends on is found and goes before it. */
const BASE_MODULES = ['virtio_pci', 'virtio_console', 'virtio_net', 'virtio_blk', 'qemu_fw_cfg']
const DISK_MODULES = ['sd_mod', 'ata_piix', 'nbd', 'ext4']

/** Comes after all that the script wrote, with the script's exit status behind it. */
export const STATUS_MARK = 'guest-script-status:'
/** Where the script lies among the files that QEMU's fw_cfg device hands to the guest. */
export const SCRIPT_NAME = 'opt/candor/script'

const MODULE_ENDING = /\.ko(\.xz)?$/
const UNPACKED_MODULE_BYTES_MAX = 64 * 2 ** 20

// The script's standard input and output are a virtio port, which keeps them apart from what the kernel says on the
// serial console; its errors and the trace of its commands go to that console, to be read when a test fails.
// There is no sync before the power goes: what a script did not sync is its own affair, and a dead disk must not hang us.
const INIT = `#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/
/bin/busybox --install -s /bin
mkdir -p /proc /sys /tmp /run /mnt
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
while read -r module; do
  insmod "/modules/$module"
done </modules/order
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
  ip address add 10.0.2.15/24 dev eth0
  ip link set eth0 up
  ip route add default via 10.0.2.2
fi
cp /sys/firmware/qemu_fw_cfg/by_name/${SCRIPT_NAME}/raw /run/script
until [ -c /dev/vport*p1 ]; do sleep 0.1; done
exec 3<>"$(echo /dev/vport*p1)"
sh -eux /run/script <&3 >&3 2>/dev/console
printf '\\n${STATUS_MARK} %d\\n' $? >&3
exec poweroff -n -f
`

/** Returns the path of the archive, which is built again only when something that goes into it has changed. */
export function buildInitramfs(cache: string, kernel: GuestKernel): string {
  const archive = encodeArchive([
    file('init', Buffer.from(INIT)),
    file('bin/busybox', readFileSync(requireTool('busybox'))),
    link('bin/sh', 'busybox'),
    ...toolEntries(),
    ...moduleEntries(kernel),
  ])
  const name = `initramfs-${createHash('sha256').update(archive).digest('hex').slice(0, 16)}.cpio`
  const path = join(cache, name)
  if (existsSync(path)) return path
  const scratch = `${path}.${process.pid}`
  writeFileSync(scratch, archive)
  removeOldArchives(cache)
  renameSync(scratch, path)
  return path
}

/** One archive per state of the tools is 16 MB; the last one is all that is needed. */
function removeOldArchives(cache: string): void {
  const old = readdirSync(cache).filter((name) => /^initramfs-\w+\.cpio$/.test(name))
  for (const name of old) rmSync(join(cache, name), { force: true })
}

function toolEntries(): ArchiveEntry[] {
  const optional = OPTIONAL_TOOLS.filter((name) => findTool(name) !== undefined)
  const tools = [...GUEST_TOOLS, ...optional].map((name) => ({ name, path: realpathSync(requireTool(name)) }))
  const libraries = new Set(tools.flatMap((tool) => librariesOf(tool.path)))
  // Without its configuration mke2fs would make an ext2 of what was asked to become an ext4.
  const configuration = '/etc/mke2fs.conf'
  return [
    ...tools.map((tool) => file(`usr/sbin/${tool.name}`, readFileSync(tool.path))),
    ...MKE2FS_NAMES.map((name) => link(`usr/sbin/${name}`, 'mke2fs')),
    ...[...libraries].map((library) => file(library.slice(1), readFileSync(library))),
    ...(existsSync(configuration) ? [file(configuration.slice(1), readFileSync(configuration))] : []),
  ]
}

/** The absolute paths in ldd's answer: the libraries and the loader, under the names by which they are looked for. */
function librariesOf(program: string): string[] {
  const answer = execFileSync('ldd', [program], { encoding: 'utf8' })
  return [...answer.matchAll(/(\/\S+) \(0x/g)].flatMap((match) => match[1] ?? [])
}

function moduleEntries(kernel: GuestKernel): ArchiveEntry[] {
  const paths = new Map<string, string>()
  for (const path of readdirSync(kernel.modules, { recursive: true, encoding: 'utf8' })) {
    if (MODULE_ENDING.test(path)) paths.set(moduleName(path), join(kernel.modules, path))
  }
  const list = readFileSync(join(kernel.modules, 'modules.builtin'), 'utf8')
  const builtIn = new Set(list.split('\n').map((path) => moduleName(path)))
  const loaded = new Map<string, Buffer>()
  for (const name of [...BASE_MODULES, ...DISK_MODULES]) {
    if (!builtIn.has(name)) addModule(name, paths, loaded)
  }
  const order = [...loaded.keys()].map((name) => `${name}.ko\n`).join('')
  const modules = [...loaded].map(([name, content]) => file(`modules/${name}.ko`, content))
  return [...modules, file('modules/order', Buffer.from(order))]
}

function addModule(name: string, paths: ReadonlyMap<string, string>, loaded: Map<string, Buffer>): void {
  if (loaded.has(name)) return
  const path = paths.get(name)
  if (path === undefined) throw new Error(`the guest's kernel has no module ${name}`)
  const content = readModule(path)
  for (const needed of dependenciesOf(content)) addModule(needed, paths, loaded)
  loaded.set(name, content)
}

/** Newer Debian releases compress their modules, and the guest's insmod is not relied upon to know how. */
function readModule(path: string): Buffer {
  if (!path.endsWith('.xz')) return readFileSync(path)
  return execFileSync('xz', ['-d', '-c', path], { maxBuffer: UNPACKED_MODULE_BYTES_MAX })
}

/** A module names what it depends on in its .modinfo section: "depends=libata,scsi_mod" and a zero byte. */
function dependenciesOf(module: Buffer): string[] {
  const at = module.indexOf('\0depends=')
  if (at < 0) return []
  const start = at + '\0depends='.length
  const names = module.toString('latin1', start, module.indexOf(0, start))
  return names
    .split(',')
    .filter((name) => name !== '')
    .map((name) => moduleName(name))
}

/** Files may be spelt with a dash where dependencies have an underscore. */
function moduleName(path: string): string {
  return basename(path).replace(MODULE_ENDING, '').replaceAll('-', '_')
}

function file(path: string, content: Buffer): ArchiveEntry {
  return { path, kind: 'file', content }
}

function link(path: string, target: string): ArchiveEntry {
  return { path, kind: 'link', content: Buffer.from(target) }
}
