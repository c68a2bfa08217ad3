// The manifests in deploy/: sound by the schemas of those who read them, sound in themselves, and the configurations in them
// sound for candor. Nobody here can apply them.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Ajv } from 'ajv'
import { parse, parseAllDocuments } from 'yaml'
import { runCandor, temporaryFolder } from '../support/candor.js'
import { COMPOSE, KINDS } from '../support/manifest-schemas.js'

const DEPLOY = fileURLToPath(new URL('../../../deploy', import.meta.url))
const ajv = new Ajv({ allErrors: true, strictRequired: false })

interface Container {
  readonly name: string
  readonly image: string
  readonly command?: readonly string[]
  readonly ports?: readonly { readonly name: string; readonly containerPort: number }[]
  readonly volumeMounts?: readonly { readonly name: string; readonly mountPath: string }[]
  readonly readinessProbe?: { readonly httpGet?: { readonly port: string } }
}

interface Volume {
  readonly name: string
  readonly configMap?: { readonly name: string }
  readonly persistentVolumeClaim?: { readonly claimName: string }
}

/** Whatever stands in any of the kinds that are here. */
interface Manifest {
  readonly kind: string
  readonly metadata: { readonly name: string; readonly labels?: Labels }
  readonly data?: Readonly<Record<string, string>>
  readonly spec: {
    readonly serviceName: string
    readonly selector: Labels & { readonly matchLabels: Labels }
    readonly ports: readonly { readonly name: string; readonly targetPort: string }[]
    readonly endpoints: readonly { readonly port: string }[]
    readonly template: {
      readonly metadata: { readonly labels: Labels }
      readonly spec: {
        readonly initContainers: readonly Container[]
        readonly containers: readonly Container[]
        readonly volumes: readonly Volume[]
      }
    }
  }
}

type Labels = Readonly<Record<string, string>>

const manifests = ['sidecar', 'service-monitor'].flatMap((name) =>
  parseAllDocuments(readFileSync(join(DEPLOY, `kubernetes/${name}.yaml`), 'utf8')).map((document) => {
    assert.deepEqual(document.errors, [])
    return document.toJS() as Manifest
  }),
)

function named(kind: string): Manifest {
  const found = manifests.find((manifest) => manifest.kind === kind)
  assert.ok(found !== undefined, kind)
  return found
}

function faults(schema: object, value: unknown): string[] {
  const validate = ajv.compile(schema)
  return validate(value) ? [] : (validate.errors ?? []).map(({ instancePath, message }) => `${instancePath} ${message}`)
}

/** What `candor serve --check` says of a configuration. */
async function checked(text: string): Promise<string> {
  const { path, remove } = temporaryFolder()
  try {
    writeFileSync(join(path, 'candor.yaml'), text)
    const { stdout, stderr } = await runCandor(['serve', '--config', join(path, 'candor.yaml'), '--check'])
    return (stdout + stderr).replace(path, '')
  } finally {
    remove()
  }
}

test('the manifests for Kubernetes are of kinds that are known, without a key that is not', () => {
  assert.deepEqual(
    manifests.map(({ kind }) => kind),
    ['ConfigMap', 'PersistentVolumeClaim', 'PersistentVolumeClaim', 'Service', 'StatefulSet', 'ServiceMonitor'],
  )
  for (const manifest of manifests) assert.deepEqual(faults(KINDS[manifest.kind] ?? {}, manifest), [], manifest.kind)
  const wrong = structuredClone(named('StatefulSet'))
  Object.assign(wrong.spec.template.spec, { terminationGracePeriod: 5 })
  assert.deepEqual(faults(KINDS['StatefulSet'] ?? {}, wrong), [
    '/spec/template/spec must NOT have additional properties',
  ])
})

test('what they name is there: volumes, claims, the configuration, ports, labels', () => {
  const { spec } = named('StatefulSet')
  const pod = spec.template.spec
  const names = new Set(pod.volumes.map(({ name }) => name))
  for (const { volumeMounts = [] } of [...pod.initContainers, ...pod.containers]) {
    for (const { name } of volumeMounts) assert.ok(names.has(name), name)
  }
  const known = (kind: string) => manifests.filter((each) => each.kind === kind).map(({ metadata }) => metadata.name)
  for (const { configMap, persistentVolumeClaim: claim } of pod.volumes) {
    if (configMap !== undefined) assert.deepEqual(known('ConfigMap'), [configMap.name])
    if (claim !== undefined) assert.ok(known('PersistentVolumeClaim').includes(claim.claimName))
  }
  const [sidecar] = pod.initContainers
  const ports = sidecar?.ports?.map(({ name }) => name)
  assert.deepEqual(ports, [sidecar?.readinessProbe?.httpGet?.port])
  const service = named('Service')
  assert.deepEqual(
    service.spec.ports.map(({ targetPort }) => targetPort),
    ports,
  )
  assert.deepEqual(
    [service.spec.selector, spec.selector.matchLabels],
    [spec.template.metadata.labels, spec.template.metadata.labels],
  )
  assert.equal(spec.serviceName, service.metadata.name)
  const monitor = named('ServiceMonitor').spec
  assert.deepEqual(monitor.selector.matchLabels, service.metadata.labels)
  assert.equal(monitor.endpoints[0]?.port, service.spec.ports[0]?.name)
  // The alerts know the job by this name, which the operator takes from the service.
  assert.equal(service.metadata.name, 'candor')
})

test('the configurations in them are sound, and lie where the containers have their volumes', async () => {
  const text = named('ConfigMap').data?.['candor.yaml'] ?? ''
  assert.equal(await checked(text), '/candor.yaml is sound: 1 exports\n')
  const compose = readFileSync(join(DEPLOY, 'container/candor.yaml'), 'utf8')
  assert.equal(await checked(compose), '/candor.yaml is sound: 1 exports\n')
  for (const each of [text, compose]) {
    const { listen, exports } = parse(each) as { listen: string[]; exports: Record<string, { image: string }> }
    assert.deepEqual(listen, ['unix:/run/candor/nbd'])
    assert.deepEqual(
      Object.entries(exports).map(([name, { image }]) => [name, image]),
      [['disk1', '/images/disk1.img']],
    )
  }
})

/** Whatever is left of it: told early enough, the shell has started nothing. */
function killGroup(leader: number | undefined): void {
  try {
    if (leader !== undefined) process.kill(-leader, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

test('the client beside the sidecar ends when it is told to, and leaves it the time for its sync', async (t) => {
  const { path: folder, remove } = temporaryFolder()
  t.after(remove)
  writeFileSync(join(folder, 'candor'), '#!/bin/sh\necho attached\n', { mode: 0o755 })
  const [client] = named('StatefulSet').spec.template.spec.containers
  const [shell = '', ...words] = client?.command ?? []
  const env = { PATH: `${folder}:${process.env['PATH']}` }
  const stdio: ['ignore', 'pipe', 'inherit'] = ['ignore', 'pipe', 'inherit']
  // A group of its own: what the shell has started goes with it, as in a container.
  const child = spawn(shell, words, { env, stdio, detached: true })
  const ended = once(child, 'exit')
  t.after(() => killGroup(child.pid))
  await once(child.stdout, 'data')
  child.kill('SIGTERM')
  // Not by the signal, which a process 1 does not feel: by its handler.
  assert.deepEqual(await ended, [0, null])
})

test('the compose file has no key that Compose does not know, and its volumes are declared', () => {
  const compose = parse(readFileSync(join(DEPLOY, 'container/compose.yaml'), 'utf8')) as {
    services: Record<string, { volumes: string[] }>
    volumes: object
  }
  assert.deepEqual(faults(COMPOSE, compose), [])
  const used = Object.values(compose.services).flatMap(({ volumes }) =>
    volumes.map((volume) => volume.split(':')[0] ?? ''),
  )
  const declared = Object.keys(compose.volumes)
  assert.deepEqual([...new Set(used.filter((name) => !name.startsWith('.')))].sort(), declared.sort())
})
