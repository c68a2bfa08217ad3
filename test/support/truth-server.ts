// A served disk that fails by chance, its operator, and what is known of it from the inside: how often it was told of
// a failed sync, what lies on stable storage, what its counters and its ledger say.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { COMMANDS, commandName } from 'nbd-protocol'
import { ERRNOS, errnoName, withFaults } from '../../backends/index.js'
import type { SpacePolicy } from '../../server/exports/space-hold.js'
import { errorAt } from '../../server/observe/counters.js'
import { Ledger, type LedgerEntry, parseLedger } from '../../server/state/ledger.js'
import { temporaryFolder } from './candor.js'
import type { Weather } from './fault-weather.js'
import { type InProcess, serveInProcess } from './in-process.js'
import { LinuxDisk } from './linux-disk.js'
import { fileMedium, memoryMedium, type Overheard, overheard } from './linux-disk-media.js'

export type Storage = 'memory' | 'a sparse file'

interface Parts {
  readonly disk: LinuxDisk
  readonly server: InProcess
  readonly weather: Weather
  readonly ledger: Ledger
  readonly ears: Overheard
  readonly folder: { readonly path: string; remove(): void }
}

export class TruthServer {
  readonly disk: LinuxDisk
  readonly server: InProcess
  readonly weather: Weather
  readonly #parts: Parts
  /** Failed syncs that the server was told of, and truncations; up to `healed` of them a resume has answered for. */
  told = 0
  healed = 0
  truncations = 0
  forgets = 0

  private constructor(parts: Parts) {
    this.#parts = parts
    this.disk = parts.disk
    this.server = parts.server
    this.weather = parts.weather
  }

  static async start(storage: Storage, size: number, weather: Weather, onSpace: SpacePolicy): Promise<TruthServer> {
    const folder = temporaryFolder()
    const medium = await (storage === 'memory' ? memoryMedium(size) : fileMedium(join(folder.path, 'disk.img'), size))
    const disk = new LinuxDisk(medium, weather)
    const ledger = new Ledger(ledgerIn(folder.path), (entries) => assert.fail(`${entries} ledger entries were lost`))
    let told = () => {}
    const ears = overheard(withFaults(disk, weather.plan), () => told())
    const server = await serveInProcess(ears.backend, {}, { onSpace, ledger })
    const made = new TruthServer({ disk, server, weather, ledger, folder, ears })
    told = () => {
      made.told += 1
    }
    return made
  }

  isSuspect(offset: number): boolean {
    return this.server.served.durability.suspect.intersects(offset, offset + 1)
  }

  /** Storage has not come back with a change of this byte. */
  isChanging(offset: number): boolean {
    return [...this.#parts.ears.changes].some(([start, end]) => start <= offset && offset < end)
  }

  /** What an operator asks of the export; false when it is refused. */
  async operator(command: 'resume' | 'forget' | 'hold-release' | 'hold-fail'): Promise<boolean> {
    const told = this.told
    const { ok } = await this.server.host.ask({ command, name: 'disk' })
    if (ok && command === 'resume') this.healed = Math.max(this.healed, told)
    return ok
  }

  /**
   * Somebody cuts the file off, but not under a change that is on its way: no look at the file can tell of that. Nor is
   * it made longer: in Linux that loses nothing that a server could tell of, and where it brings back as zeroes what was
   * cut off since the last look, no later look can tell of it either.
   */
  truncate(size: number): boolean {
    if (this.#parts.ears.changes.size > 0 || size >= this.disk.look().present) return false
    this.disk.truncate(size)
    this.truncations += 1
    this.told += 1
    return true
  }

  /** Errors that the counters hold, by command and the host's errno. */
  counted(): ReadonlyMap<string, number> {
    const { counters } = this.server.served
    const counts = new Map<string, number>()
    for (let command = 0; command < COMMANDS; command++) {
      for (let errno = 1; errno < ERRNOS; errno++) {
        const value = counters[errorAt(command, errno)] ?? 0
        if (value > 0) counts.set(`${commandName(command)} ${errnoName(errno)}`, value)
      }
    }
    return counts
  }

  /** What the ledger holds, written out. */
  async located(): Promise<readonly LedgerEntry[]> {
    await this.#parts.ledger.flush()
    try {
      const { entries, damaged } = parseLedger(readFileSync(ledgerIn(this.#parts.folder.path), 'utf8'))
      assert.equal(damaged, 0)
      return entries
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return []
      throw error
    }
  }

  async close(): Promise<void> {
    this.weather.clearUp()
    await this.server.close()
    await this.#parts.ledger.flush()
    this.#parts.folder.remove()
  }
}

function ledgerIn(folder: string): string {
  return join(folder, 'errors-disk.jsonl')
}
