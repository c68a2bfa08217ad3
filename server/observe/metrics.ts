// The metrics of the design as prom-client collectors over shared counters: nothing is counted here, the numbers are
// read when somebody asks. Runs in the HTTP thread.
import { collectDefaultMetrics, type Metric, Registry, type RegistryContentType } from 'prom-client'
import type { Observed, Sample } from './family.js'
import { FAMILIES } from './metric-families.js'

/** A scrape's answer. */
export interface MetricsPage {
  readonly contentType: string
  readonly text: string
}

type Values = () => Iterable<Sample> | Promise<Iterable<Sample>>

/** What prom-client asks of a metric at a scrape; its own Counter cannot be set to a number that others count. */
class SharedMetric {
  /** For OpenMetrics prom-client takes `_total` off. */
  readonly name: string
  readonly help: string
  readonly type: string
  readonly aggregator = 'sum'
  readonly #values: Values

  constructor({ name, help, type }: { name: string; help: string; type: string }, values: Values) {
    this.name = name
    this.help = help
    this.type = type
    this.#values = values
  }

  async get(): Promise<object> {
    const { name, help, type, aggregator } = this
    return { name, help, type, aggregator, values: [...(await this.#values())] }
  }
}

/** Of prom-client's default metrics those that speak of the whole process; the others would describe this thread. */
async function processMetrics(): Promise<((registry: Registry) => void)[]> {
  const defaults = new Registry()
  collectDefaultMetrics({ register: defaults })
  const described = (await defaults.getMetricsAsJSON()).filter(({ name }) => name.startsWith('process_'))
  return described.map(({ name, help, type }) => {
    const values = async () => (await defaults.getSingleMetric(name)?.get())?.values ?? []
    return (registry) => register(registry, new SharedMetric({ name, help, type: String(type) }, values as Values))
  })
}

function register(registry: Registry, metric: SharedMetric): void {
  registry.registerMetric(metric as unknown as Metric)
}

const OPEN_METRICS = /(?:^|,)\s*application\/openmetrics-text\s*(?:;|,|$)/

/** Renders whatever `observed` says at the moment of the scrape, in the format that the Accept header asks for. */
export async function metricsPage(
  observed: () => Observed,
): Promise<(accept: string | undefined) => Promise<MetricsPage>> {
  const ofProcess = await processMetrics()
  const inFormat = (contentType: RegistryContentType): Registry => {
    const registry = new Registry()
    registry.setContentType(contentType as typeof registry.contentType)
    for (const family of FAMILIES) register(registry, new SharedMetric(family, () => family.collect(observed())))
    for (const registerIn of ofProcess) registerIn(registry)
    return registry
  }
  const plain = inFormat(Registry.PROMETHEUS_CONTENT_TYPE)
  const open = inFormat(Registry.OPENMETRICS_CONTENT_TYPE)
  return async (accept) => {
    const registry = OPEN_METRICS.test(accept ?? '') ? open : plain
    return { contentType: registry.contentType, text: await registry.metrics() }
  }
}
