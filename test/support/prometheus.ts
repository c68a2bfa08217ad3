// A real Prometheus on the loopback that scrapes candor, with a receiver for the alerts that it fires.
import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { json } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { temporaryFolder } from './candor.js'
import type { Scope } from './faults.js'

/** A file of the project, by its path from the root. */
export function projectFile(path: string): string {
  return fileURLToPath(new URL(`../../../${path}`, import.meta.url))
}

export interface FiredAlert {
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
}

/** One series of an instant query. */
export interface Series {
  readonly metric: Readonly<Record<string, string>>
  readonly value: number
}

export interface Prometheus {
  query(expression: string): Promise<Series[]>
  /** Resolves with the first alert of this name that fires for an export, or for anything. */
  fired(alert: string, exportName?: string): Promise<FiredAlert>
}

interface Receiver {
  readonly address: string
  fired: Prometheus['fired']
}

/** What Prometheus takes for an Alertmanager. */
async function alertReceiver(scope: Scope): Promise<Receiver> {
  const alerts: FiredAlert[] = []
  const wakes: (() => void)[] = []
  const server = createServer(async (request, response) => {
    alerts.push(...((await json(request)) as FiredAlert[]))
    response.end()
    for (const wake of wakes.splice(0)) wake()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  scope.after(() => {
    server.close()
    server.closeAllConnections()
  })
  const { port } = server.address() as AddressInfo
  const find = (name: string, exportName: string | undefined) =>
    alerts.find(
      ({ labels }) => labels['alertname'] === name && (exportName === undefined || labels['export'] === exportName),
    )
  return {
    address: `127.0.0.1:${port}`,
    fired: async (name, exportName) => {
      for (;;) {
        const found = find(name, exportName)
        if (found !== undefined) return found
        await new Promise<void>((resolve) => wakes.push(resolve))
      }
    },
  }
}

/** JSON is YAML. */
function configuration(targets: readonly string[], alertmanager: string, rules: string): string {
  return JSON.stringify({
    global: { scrape_interval: '200ms', scrape_timeout: '200ms', evaluation_interval: '200ms' },
    rule_files: [rules],
    alerting: { alertmanagers: [{ static_configs: [{ targets: [alertmanager] }] }] },
    scrape_configs: [{ job_name: 'candor', static_configs: [{ targets }] }],
  })
}

/** Starts one that scrapes these HTTP addresses (`http://127.0.0.1:1234`) five times a second and follows the rules. */
export async function startPrometheus(scope: Scope, httpUrls: readonly string[], rules: string): Promise<Prometheus> {
  const folder = temporaryFolder()
  scope.after(() => folder.remove())
  const receiver = await alertReceiver(scope)
  const config = join(folder.path, 'prometheus.yml')
  const ruleFile = join(folder.path, 'rules.yml')
  writeFileSync(ruleFile, rules)
  writeFileSync(
    config,
    configuration(
      httpUrls.map((url) => new URL(url).host),
      receiver.address,
      ruleFile,
    ),
  )
  const flags = [`--config.file=${config}`, `--storage.tsdb.path=${join(folder.path, 'data')}`]
  const dieTogether = ['--pdeathsig', 'KILL', '--', 'prometheus', '--web.listen-address=127.0.0.1:0']
  const child = spawn('setpriv', [...dieTogether, ...flags], { stdio: ['ignore', 'ignore', 'pipe'] })
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  scope.after(() => {
    child.kill('SIGKILL')
    return ended
  })
  const address = await listening(child.stderr, ended)
  return { fired: receiver.fired, query: (expression) => query(address, expression) }
}

async function listening(stderr: NodeJS.ReadableStream, ended: Promise<void>): Promise<string> {
  let said = ''
  stderr.setEncoding('utf8')
  const ready = new Promise<string>((resolve) => {
    stderr.on('data', (text: string) => {
      said += text
      const address = /msg="Listening on" address=(\S+)/.exec(said)?.[1]
      if (address !== undefined && said.includes('ready to receive web requests')) resolve(address)
    })
  })
  const address = await Promise.race([ready, ended])
  if (address === undefined) throw new Error(`prometheus ended:\n${said}`)
  return address
}

async function query(address: string, expression: string): Promise<Series[]> {
  const answer = await fetch(`http://${address}/api/v1/query?query=${encodeURIComponent(expression)}`)
  const body = (await answer.json()) as {
    error?: string
    data: { result: { metric: Series['metric']; value: [number, string] }[] }
  }
  if (body.error !== undefined) throw new Error(`${expression}: ${body.error}`)
  return body.data.result.map(({ metric, value }) => ({ metric, value: numberOf(value[1]) }))
}

function numberOf(text: string): number {
  return text === '+Inf' ? Number.POSITIVE_INFINITY : Number(text)
}
