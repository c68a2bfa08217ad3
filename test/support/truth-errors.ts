// Law 4: every error that a client heard of is counted by command and errno, and located in the ledger.
import assert from 'node:assert/strict'
import type { Heard, Scene } from './truth-clients.js'

export async function assertSeen({ heard, served, strays }: Scene): Promise<void> {
  const counted = served.counted()
  const located = await served.located()
  const sums = (of: ReadonlyMap<string, number>) => [...of].sort(([one], [other]) => (one < other ? -1 : 1))
  const inLedger = new Map<string, number>()
  for (const { command, errno, count } of located) {
    if (errno !== 'dropped') add(inLedger, `${command} ${errno}`, count)
  }
  assert.deepEqual(sums(inLedger), sums(counted), 'law 4: the ledger holds what the counters hold')
  const total = [...counted.values()].reduce((sum, value) => sum + value, 0)
  if (strays === 0) assert.equal(total, heard.length, 'law 4: each error is counted once')
  else assert.ok(total >= heard.length, `law 4: ${heard.length} errors were heard, and ${total} counted`)
  const named = new Map<string, number>()
  for (const { command, errno } of heard) if (errno !== undefined) add(named, `${command} ${errno}`, 1)
  for (const [name, value] of named) {
    assert.ok(value <= (counted.get(name) ?? 0), `law 4: ${value} × ${name} heard, ${counted.get(name) ?? 0} counted`)
  }
  for (const each of heard) {
    const isThere = ({ command, errno, offset, length }: (typeof located)[number]) =>
      command === each.command && (each.errno ?? errno) === errno && covers(offset, length, each)
    assert.ok(located.some(isThere), `law 4: the ledger locates ${JSON.stringify(each)}`)
  }
}

function covers(offset: number, length: number, heard: Heard): boolean {
  return offset <= heard.offset && heard.offset + heard.length <= offset + length
}

function add(sums: Map<string, number>, name: string, by: number): void {
  sums.set(name, (sums.get(name) ?? 0) + by)
}
