// What one measurement yields, and the error that says that it yielded nothing.

export interface Measurement {
  /** IOPS or MiB/s, as the job's unit says. */
  readonly figure: number
  /** 99th percentile of the completion latency in µs, the worse of reads and writes; null where nobody measures it. */
  readonly p99us: number | null
  /** Requests that the server answered; null when the client does not tell. */
  readonly requests: number | null
}

export interface ServerMeasurement extends Measurement {
  /** User and system time of all the server's threads during the measurement. */
  readonly cpuSeconds: number
}

/** The client reported an error or the server went away: there is no figure to print. */
export class MeasurementFailed extends Error {}
