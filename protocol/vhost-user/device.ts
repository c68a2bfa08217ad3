// What a session has to know of the device behind it.

export interface Device {
  /** Feature bits that it offers; VHOST_USER_F_PROTOCOL_FEATURES comes by itself. */
  readonly features: bigint
  readonly protocolFeatures: bigint
  readonly queuesMax: number
  readonly memorySlotsMax: number
  /** The configuration space as it is now, VHOST_USER_CONFIG_BYTES_MAX bytes, of which the front-end is told these. */
  readonly config: (offset: number, size: number) => Uint8Array
}
