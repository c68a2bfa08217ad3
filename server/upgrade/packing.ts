// A server's state as bytes, and back: JSON of which blocks of bytes, and descriptors, are left out by number. Law: what is
// unpacked is what was packed, with the descriptors that the unpacking process has for the same open files.
//
//     | bytes of JSON: 4 | JSON | blocks one behind the other |

type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

const HEAD_BYTES = 4

/** A key under which a descriptor's number stands. */
function isDescriptor(key: string, value: unknown): value is number {
  return (key === 'fd' || key.endsWith('Fd')) && typeof value === 'number' && value >= 0
}

export interface Packed {
  readonly bytes: Uint8Array
  /** This process's, in the order in which the bytes name them. */
  readonly descriptors: readonly number[]
}

export function pack(value: unknown): Packed {
  const descriptors: number[] = []
  const blocks: Uint8Array[] = []
  const strip = (key: string, each: unknown): Json | undefined => {
    if (isDescriptor(key, each)) return { $fd: numberOf(descriptors, each) }
    if (each instanceof Uint8Array || each instanceof Uint32Array) {
      blocks.push(new Uint8Array(each.buffer, each.byteOffset, each.byteLength))
      return { $block: blocks.length - 1, bytes: each.byteLength, words: each instanceof Uint32Array }
    }
    if (typeof each === 'number' && !Number.isFinite(each)) return { $number: String(each) }
    if (Array.isArray(each)) return each.map((one, index) => strip(String(index), one) ?? null)
    if (typeof each !== 'object' || each === null) return each as Json | undefined
    const entries = Object.entries(each).map(([name, one]) => [name, strip(name, one)] as const)
    return Object.fromEntries(entries.filter(([, one]) => one !== undefined)) as Json
  }
  const json = Buffer.from(JSON.stringify(strip('', value)))
  const head = Buffer.alloc(HEAD_BYTES)
  head.writeUInt32BE(json.length)
  return { bytes: Buffer.concat([head, json, ...blocks]), descriptors }
}

function numberOf(descriptors: number[], fd: number): number {
  const known = descriptors.indexOf(fd)
  return known === -1 ? descriptors.push(fd) - 1 : known
}

/** `descriptors` are those of the unpacking process, in the order of `Packed`. @throws SyntaxError for what is no JSON */
export function unpack(bytes: Uint8Array, descriptors: readonly number[]): unknown {
  const all = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let at = HEAD_BYTES + all.readUInt32BE(0)
  const restore = (each: Json): unknown => {
    if (typeof each !== 'object' || each === null) return each
    if (Array.isArray(each)) return each.map(restore)
    const { $fd, $block, $number, bytes: length = 0, words } = each as Readonly<Record<string, Json>>
    if ($fd !== undefined) return descriptors[Number($fd)]
    if ($number !== undefined) return Number($number)
    if ($block === undefined) return Object.fromEntries(Object.entries(each).map(([name, one]) => [name, restore(one)]))
    const block = Uint8Array.prototype.slice.call(new Uint8Array(all.buffer, all.byteOffset + at, Number(length)))
    at += Number(length)
    return words === true ? new Uint32Array(block.buffer) : block
  }
  return restore(JSON.parse(all.toString('utf8', HEAD_BYTES, at)) as Json)
}
