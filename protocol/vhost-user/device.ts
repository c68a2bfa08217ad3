// What a session has to know of the device behind it.

export interface Device {
  /** Feature bits that it offers; VHOST_USER_F_PROTOCOL_FEATURES comes by itself. */
  readonly features: bigint
  readonly protocolFeatures: bigint
  readonly queuesMax: number
  /** Regions of memory: cloud-hypervisor tells of all that were plugged in one message, when it comes again. */
  readonly memorySlotsMax: number
  /** These bytes of the configuration space as it is now, which the front-end is told. */
  readonly config: (offset: number, size: number) => Uint8Array
}
