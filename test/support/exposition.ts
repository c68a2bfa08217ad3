// What /metrics answers, taken apart: the types it announces, and its samples with their labels.

export interface Exposed {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface Exposition {
  readonly contentType: string
  readonly text: string
  /** By the name of the family. */
  readonly types: ReadonlyMap<string, string>
  readonly samples: readonly Exposed[]
  /** The values of the samples with this name and at least these labels, added up. */
  sum(name: string, labels?: Readonly<Record<string, string>>): number
}

export const OPEN_METRICS = 'application/openmetrics-text; version=1.0.0'

export async function scrape(httpUrl: string | undefined, accept = 'text/plain'): Promise<Exposition> {
  const answer = await fetch(`${httpUrl}/metrics`, { headers: { accept } })
  const text = await answer.text()
  const lines = text.split('\n')
  const types = new Map(
    lines.flatMap((line): [string, string][] => {
      const match = /^# TYPE (\S+) (\S+)$/.exec(line)
      return match === null ? [] : [[match[1] ?? '', match[2] ?? '']]
    }),
  )
  const samples = lines.filter((line) => line !== '' && !line.startsWith('#')).map(sample)
  const sum: Exposition['sum'] = (name, labels = {}) =>
    samples
      .filter((one) => one.name === name && Object.entries(labels).every(([key, value]) => one.labels[key] === value))
      .reduce((total, { value }) => total + value, 0)
  return { contentType: answer.headers.get('content-type') ?? '', text, types, samples, sum }
}

function sample(line: string): Exposed {
  const match = /^([a-zA-Z_:]\w*)(?:\{(.*)\})? (\S+)$/.exec(line)
  if (match === null) throw new Error(`no sample: ${line}`)
  const [, name = '', labels = '', value = ''] = match
  const pairs = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map((pair) => [pair[1], pair[2]])
  return { name, labels: Object.fromEntries(pairs), value: value === '+Inf' ? Number.POSITIVE_INFINITY : Number(value) }
}

/** The family that a sample belongs to, by the text format's types. */
export function familyOf(name: string, types: ReadonlyMap<string, string>): string {
  const stem = name.replace(/_(?:bucket|sum|count)$/, '')
  return types.get(stem) === 'histogram' ? stem : name
}
