// The ways in which a guest gets its disk, as a table. Law: each row says all that a scenario has to know of a way.
import { attachScript, type ServedDisk } from './guest-scenario.js'
import { vhostUserDrive } from './guest-vhost-user.js'

/** What QEMU does where the server answers a write with an error: tell the guest, or pause it if there is no space. */
export type WriteErrors = 'report' | 'enospc'

export interface Attachment {
  readonly name: string
  /** As the guest's kernel calls the disk. */
  readonly device: string
  /** The first partition of it. */
  readonly partition: string
  /** QEMU's policies, where it is QEMU that sends the requests; none where the guest's kernel does. */
  readonly werror: readonly WriteErrors[]
  /** What the guest's kernel logs for a write that was answered with an error. */
  readonly errorLogged: RegExp
  qemuArguments(disk: ServedDisk, werror: WriteErrors | undefined): readonly string[]
  /** Lines of the guest's script around those that use the disk. */
  attach(disk: ServedDisk): string
  readonly detach: string
}

function drive(type: string): Attachment['qemuArguments'] {
  return ({ qemuFile }, werror) => [
    '-drive',
    [`if=${type}`, ...(werror === undefined ? [] : [`werror=${werror}`]), 'format=raw', `file=${qemuFile}`].join(','),
  ]
}

export const NBD_KO: Attachment = {
  name: 'nbd.ko with nbd-client',
  device: 'nbd0',
  partition: '/dev/nbd0p1',
  werror: [],
  errorLogged: /block nbd0: Other side returned error \(28\)/,
  qemuArguments: () => [],
  attach: (disk) => attachScript(disk),
  detach: 'nbd-client -d /dev/nbd0',
}

export const QEMU_IDE: Attachment = {
  name: "QEMU's IDE disk",
  device: 'sda',
  partition: '/dev/sda1',
  werror: ['report', 'enospc'],
  errorLogged: /ata\d\.\d\d: status: \{ DRDY ERR/,
  qemuArguments: drive('ide'),
  attach: () => '',
  detach: '',
}

export const QEMU_VIRTIO: Attachment = {
  name: "QEMU's virtio disk",
  // The first virtio disk is the one that the pattern comes from.
  device: 'vdb',
  partition: '/dev/vdb1',
  werror: ['report', 'enospc'],
  errorLogged: /I\/O error, dev vdb, sector \d+ op 0x1:\(WRITE\)/,
  qemuArguments: drive('virtio'),
  attach: () => '',
  detach: '',
}

/** QEMU does not see the requests: what the server answers is what the guest's kernel gets. */
export const VHOST_USER: Attachment = {
  name: 'vhost-user-blk',
  device: 'vdb',
  partition: '/dev/vdb1',
  werror: [],
  errorLogged: /I\/O error, dev vdb, sector \d+ op 0x1:\(WRITE\)/,
  qemuArguments: ({ guestSocket }) => vhostUserDrive({ socket: guestSocket }),
  attach: () => '',
  detach: '',
}

export const ATTACHMENTS: readonly Attachment[] = [NBD_KO, QEMU_IDE, QEMU_VIRTIO, VHOST_USER]
