// QEMU's words for a vhost-user disk: shared memory, a socket that it comes back to, and a place behind all other disks.

export interface VhostUserDisk {
  readonly socket: string
  readonly memoryMiB?: number
  readonly queues?: number
  /** The guest's memory lies in pages of 2 MiB, which the host has to have. */
  readonly hugePages?: boolean
  /** More properties of the device. */
  readonly properties?: string
}

/** Memory as startGuest gives it by default. */
const DEFAULT_MEMORY_MIB = 512

export function vhostUserDrive({
  socket,
  memoryMiB = DEFAULT_MEMORY_MIB,
  queues = 1,
  hugePages = false,
  properties,
}: VhostUserDisk): string[] {
  const device = ['vhost-user-blk-pci', 'id=vhost0', 'chardev=vhost', `num-queues=${queues}`, 'addr=0x10']
  const pages = hugePages ? ',hugetlb=on,hugetlbsize=2M' : ''
  return [
    ...[
      '-object',
      `memory-backend-memfd,id=memory,size=${memoryMiB}M,share=on${pages}`,
      '-machine',
      'memory-backend=memory',
    ],
    ...['-chardev', `socket,id=vhost,path=${socket},reconnect=1`],
    ...['-device', [...device, ...(properties === undefined ? [] : [properties])].join(',')],
  ]
}
