// The metrics of the design as prom-client collectors over shared counters: nothing is counted here, the numbers are
// read when somebody asks. Runs in the HTTP thread.
import { collectDefaultMetrics, type Metric, Registry } from 'prom-client'
import { FAMILIES, type Family, type Observed, type Sample } from './metric-families.js'

/** What prom-client asks of a metric at a scrape; its own Counter cannot be set to a number that others count. */
class SharedMetric {
  readonly name: string
  readonly help: string
  readonly type: string
  readonly aggregator = 'sum'
  readonly #collect: () => Iterable<Sample>

  constructor(family: Family, observed: () => Observed) {
    this.name = family.name
    this.help = family.help
    this.type = family.type
    this.#collect = () => family.collect(observed())
  }

  async get(): Promise<object> {
    const { name, help, type, aggregator } = this
    return { name, help, type, aggregator, values: [...this.#collect()] }
  }
}

/** Of prom-client's default metrics those that speak of the whole process; the others would describe this thread. */
function processMetrics(): Metric[] {
  const defaults = new Registry()
  collectDefaultMetrics({ register: defaults })
  return defaults
    .getMetricsAsArray()
    .map(({ name }) => defaults.getSingleMetric(name))
    .filter((metric): metric is Metric => metric !== undefined && isOfProcess(metric))
}

function isOfProcess(metric: object): boolean {
  return 'name' in metric && typeof metric.name === 'string' && metric.name.startsWith('process_')
}

/** A registry that renders whatever `observed` says at the moment of the scrape. */
export function metricsRegistry(observed: () => Observed): Registry {
  const registry = new Registry()
  for (const family of FAMILIES) registry.registerMetric(new SharedMetric(family, observed) as unknown as Metric)
  for (const metric of processMetrics()) registry.registerMetric(metric)
  return registry
}
