// A served disk in memory that fails on command.
import { after } from 'node:test'
import { RequestError } from 'nbd-protocol'
import { type FaultPlan, type Operation, openBackend, withFaults } from '../../backends/index.js'
import type { ExportOptions } from '../../server/exports/export-options.js'
import { type InProcess, serveInProcess } from './in-process.js'

const SIZE = 8 << 20

/** A served memory disk whose faults can be changed between requests. */
export interface Faulty {
  readonly server: InProcess
  plan: FaultPlan
}

export async function faulty(options: Pick<ExportOptions, 'onSpace' | 'record'> = {}): Promise<Faulty> {
  const inner = await openBackend('memory', { size: SIZE })
  const made: { plan: FaultPlan } = { plan: () => undefined }
  const server = await serveInProcess(
    withFaults(inner, (operation) => made.plan(operation)),
    {},
    options,
  )
  after(() => server.close())
  return Object.assign(made, { server })
}

/** For assert.rejects: a request that was answered with this error value. */
export function nbdError(error: number): (thrown: unknown) => boolean {
  return (thrown) => thrown instanceof RequestError && thrown.error === error
}

/** Both twins fail with this outcome, after transferring a part. */
export function failing(command: Operation['command'], outcome: number, transferred = 0): FaultPlan {
  return (operation) => (operation.command === command ? { outcome, transferred } : undefined)
}
