// A full host that is enlarged while a guest writes: held writes, a paused QEMU, and the disk errors of an IDE guest. All
// other combinations of these are in full-host-matrix.test.ts, which takes longer.
import { test } from 'node:test'
import { NBD_KO, QEMU_IDE, QEMU_VIRTIO, VHOST_USER } from '../support/guest-attachments.js'
import { playFullHost, skipWithoutFullHosts } from '../support/guest-full-host.js'

const skip = skipWithoutFullHosts()

test(
  "with --on-enospc hold the guest's dd waits until the host is enlarged, and its data are right",
  {
    skip,
  },
  (t) => playFullHost(t, { attachment: NBD_KO, onEnospc: 'hold=5m', werror: undefined }),
)

test(
  'QEMU pauses a guest with a virtio disk for want of space, and after cont its data are right',
  {
    skip,
  },
  (t) => playFullHost(t, { attachment: QEMU_VIRTIO, onEnospc: 'report', werror: 'enospc' }),
)

test(
  "the guest's driver of an IDE disk sees the errors of a full host, at the sectors that the ledger names",
  {
    skip,
  },
  (t) => playFullHost(t, { attachment: QEMU_IDE, onEnospc: 'report', werror: 'report' }),
)

test(
  'a guest with a vhost-user disk waits until the host is enlarged, and its data are right',
  {
    skip,
  },
  (t) => playFullHost(t, { attachment: VHOST_USER, onEnospc: 'hold=5m', werror: undefined }),
)
