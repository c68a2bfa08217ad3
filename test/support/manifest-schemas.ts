// What Kubernetes, the Prometheus operator and Compose know of the manifests in deploy/: only what is used there, and closed, so that
// a key that is misspelt or stands in the wrong place is refused as an API server with strict validation refuses it.

type Schema = Readonly<Record<string, unknown>>

const text: Schema = { type: 'string', minLength: 1 }
const count: Schema = { type: 'integer', minimum: 1 }
const yes: Schema = { type: 'boolean' }
const labels: Schema = { type: 'object', additionalProperties: text, minProperties: 1 }
const quantity: Schema = { type: 'string', pattern: '^[0-9]+(m|Ki|Mi|Gi|Ti)?$' }
const quantities: Schema = { type: 'object', additionalProperties: quantity }

function closed(properties: Readonly<Record<string, Schema>>, ...required: readonly string[]): Schema {
  return { type: 'object', additionalProperties: false, properties, required }
}

function list(items: Schema): Schema {
  return { type: 'array', minItems: 1, items }
}

function kind(apiVersion: string, name: string, properties: Readonly<Record<string, Schema>>): Schema {
  const metadata = closed({ name: { type: 'string', pattern: '^[a-z0-9-]+$' }, labels }, 'name')
  const head = { apiVersion: { const: apiVersion }, kind: { const: name }, metadata }
  return closed({ ...head, ...properties }, ...Object.keys(head), ...Object.keys(properties))
}

const selector = closed({ matchLabels: labels }, 'matchLabels')
const exec = closed({ command: list(text) }, 'command')
const httpGet = closed({ path: { type: 'string', pattern: '^/' }, port: text }, 'path', 'port')
const probe: Schema = {
  ...closed({ exec, httpGet, periodSeconds: count, timeoutSeconds: count, failureThreshold: count }),
  oneOf: [{ required: ['exec'] }, { required: ['httpGet'] }],
}

const container = closed(
  {
    name: text,
    image: text,
    restartPolicy: { const: 'Always' },
    command: list(text),
    args: list(text),
    ports: list(closed({ name: text, containerPort: count }, 'containerPort')),
    securityContext: closed({
      readOnlyRootFilesystem: yes,
      allowPrivilegeEscalation: yes,
      capabilities: closed({ drop: list(text), add: list(text) }),
    }),
    startupProbe: probe,
    livenessProbe: probe,
    readinessProbe: probe,
    resources: closed({ requests: quantities, limits: quantities }),
    volumeMounts: list(
      closed({ name: text, mountPath: { type: 'string', pattern: '^/' }, readOnly: yes }, 'name', 'mountPath'),
    ),
  },
  'name',
  'image',
)

const volume: Schema = {
  ...closed(
    {
      name: text,
      configMap: closed({ name: text }, 'name'),
      persistentVolumeClaim: closed({ claimName: text }, 'claimName'),
      emptyDir: closed({ medium: { enum: ['', 'Memory'] }, sizeLimit: quantity }),
    },
    'name',
  ),
  minProperties: 2,
  maxProperties: 2,
}

const podSpec = closed(
  {
    terminationGracePeriodSeconds: count,
    securityContext: closed({
      runAsNonRoot: yes,
      runAsUser: count,
      runAsGroup: count,
      fsGroup: count,
      seccompProfile: closed({ type: { enum: ['RuntimeDefault', 'Unconfined', 'Localhost'] } }, 'type'),
    }),
    initContainers: list(container),
    containers: list(container),
    volumes: list(volume),
  },
  'containers',
)

const CLAIM = closed(
  {
    accessModes: list({ enum: ['ReadWriteOnce', 'ReadOnlyMany', 'ReadWriteMany', 'ReadWriteOncePod'] }),
    resources: closed({ requests: quantities, limits: quantities }, 'requests'),
  },
  'accessModes',
  'resources',
)

export const KINDS: Readonly<Record<string, Schema>> = {
  ConfigMap: kind('v1', 'ConfigMap', { data: { type: 'object', additionalProperties: text } }),
  PersistentVolumeClaim: kind('v1', 'PersistentVolumeClaim', { spec: CLAIM }),
  Service: kind('v1', 'Service', {
    spec: closed(
      { selector: labels, ports: list(closed({ name: text, port: count, targetPort: text }, 'port')) },
      'ports',
    ),
  }),
  StatefulSet: kind('apps/v1', 'StatefulSet', {
    spec: closed(
      {
        serviceName: text,
        replicas: count,
        selector,
        template: closed({ metadata: closed({ labels }, 'labels'), spec: podSpec }, 'metadata', 'spec'),
      },
      'serviceName',
      'selector',
      'template',
    ),
  }),
  ServiceMonitor: kind('monitoring.coreos.com/v1', 'ServiceMonitor', {
    spec: closed(
      {
        selector,
        endpoints: list(
          closed({ port: text, path: text, interval: { type: 'string', pattern: '^[0-9]+(s|m)$' } }, 'port'),
        ),
      },
      'selector',
      'endpoints',
    ),
  }),
}

const service = closed(
  {
    image: text,
    command: list(text),
    entrypoint: list(text),
    init: yes,
    read_only: yes,
    cap_drop: list(text),
    security_opt: list(text),
    stop_grace_period: { type: 'string', pattern: '^[0-9]+(s|m)$' },
    restart: { enum: ['no', 'always', 'on-failure', 'unless-stopped'] },
    ports: list({ type: 'string', pattern: '^127\\.0\\.0\\.1:[0-9]+:[0-9]+$' }),
    volumes: list({ type: 'string', pattern: '^[a-z./-]+:/[a-z./-]+(:ro)?$' }),
    depends_on: {
      type: 'object',
      additionalProperties: closed({ condition: { enum: ['service_started', 'service_healthy'] } }, 'condition'),
    },
    network_mode: text,
  },
  'image',
)

export const COMPOSE: Schema = closed(
  {
    services: { type: 'object', additionalProperties: service },
    volumes: {
      type: 'object',
      additionalProperties: { anyOf: [{ type: 'null' }, closed({ driver: text, driver_opts: labels })] },
    },
  },
  'services',
)
