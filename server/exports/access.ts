// Who may see an export: networks for those who come by TCP, subjects for those who showed a certificate. Law: an export
// that a client may not see does not exist for it.
import { BlockList, isIPv4, isIPv6 } from 'node:net'

/** What the rules look at. */
export interface Visitor {
  /** undefined: a Unix socket, whose file permissions have admitted it. */
  readonly address: string | undefined
  readonly subject: string | undefined
}

export interface AccessRules {
  /** CIDR networks; empty: all. */
  readonly networks: readonly string[]
  /** Certificate subjects as `CN=…,O=…`, to the letter; empty: none is asked for. */
  readonly subjects: readonly string[]
}

const MAPPED_PREFIX = '::ffff:'

/** Splits a CIDR network; undefined where it is none. */
export function parseNetwork(text: string): { address: string; bits: number; family: 'ipv4' | 'ipv6' } | undefined {
  const [, address = '', bits] = /^([0-9a-fA-F.:]+)(?:\/(\d{1,3}))?$/.exec(text) ?? []
  const family = isIPv6(address) ? 'ipv6' : 'ipv4'
  const most = family === 'ipv6' ? 128 : 32
  const length = bits === undefined ? most : Number(bits)
  if (length > most || !(family === 'ipv6' || isIPv4(address))) return undefined
  return { address, bits: length, family }
}

export class Access {
  readonly #networks: BlockList | undefined
  readonly #subjects: ReadonlySet<string> | undefined

  /** @throws TypeError for a network that `parseNetwork` refuses: configuration has said so before */
  constructor({ networks, subjects }: AccessRules = { networks: [], subjects: [] }) {
    if (networks.length > 0) this.#networks = blockListOf(networks)
    if (subjects.length > 0) this.#subjects = new Set(subjects)
  }

  admits({ address, subject }: Visitor): boolean {
    if (this.#subjects !== undefined && (subject === undefined || !this.#subjects.has(subject))) return false
    if (this.#networks === undefined || address === undefined) return true
    // A dual-stack listener shows IPv4 peers as mapped IPv6 addresses.
    const plain = address.startsWith(MAPPED_PREFIX) ? address.slice(MAPPED_PREFIX.length) : address
    return this.#networks.check(plain, isIPv6(plain) ? 'ipv6' : 'ipv4')
  }
}

function blockListOf(networks: readonly string[]): BlockList {
  const list = new BlockList()
  for (const text of networks) {
    const network = parseNetwork(text)
    if (network === undefined) throw new TypeError(`'${text}' is no network`)
    list.addSubnet(network.address, network.bits, network.family)
  }
  return list
}
