// Makes candor.json, the Grafana dashboard, out of the panels below.
//   node deploy/grafana/make.mjs           writes it
//   node deploy/grafana/make.mjs --check   exits 1 when it is not what this script makes
import { readFileSync, writeFileSync } from 'node:fs'

const OUTPUT = new URL('candor.json', import.meta.url)
const COLUMNS = 24
const HEIGHT = 8
const STAT_HEIGHT = 4

// What the variables at the top of the dashboard choose.
const SERVER = 'instance=~"$instance"'
const EXPORT = `${SERVER},export=~"$export"`
const WINDOW = '[$__rate_interval]'
const DURATION = 'candor_request_duration_seconds'

const green = { color: 'green', value: null }
const yellow = (value) => ({ color: 'yellow', value })
const red = (value) => ({ color: 'red', value })
const ANY_IS_BAD = [green, red(1)]

const rate = (metric, labels, by) => `sum by (${by}) (rate(${metric}{${labels}}${WINDOW}))`
const quantile = (share, command) =>
  `histogram_quantile(${share}, sum by (le, export) (rate(${DURATION}_bucket{${EXPORT},command="${command}",outcome="ok"}${WINDOW})))`

/** One number, coloured by its thresholds. */
const stat = (title, unit, steps, expr, description) => ({
  type: 'stat',
  title,
  description,
  width: 3,
  height: STAT_HEIGHT,
  unit,
  steps,
  targets: [[expr, '']],
})

/** Lines over time; each target is [query, legend]. */
const lines = (title, unit, targets, { steps = [green], width = 8, description, max } = {}) => ({
  type: 'timeseries',
  title,
  description,
  width,
  height: HEIGHT,
  unit,
  steps,
  max,
  targets,
})

const OVERVIEW = [
  stat('Servers', 'none', [red(null), { color: 'green', value: 1 }], `count(candor_build_info{${SERVER}})`),
  stat(
    'Exports not ok',
    'none',
    ANY_IS_BAD,
    `sum(candor_export_state{${EXPORT},state!="ok"})`,
    'Degraded or detached.',
  ),
  stat(
    'Failed requests',
    'none',
    ANY_IS_BAD,
    `sum(increase(${DURATION}_count{${EXPORT},outcome="failed"}[$__range]))`,
    'By storage, in the range shown; what the operator’s policy refused is not in it.',
  ),
  stat('Suspect', 'bytes', ANY_IS_BAD, `sum(candor_export_suspect_bytes{${EXPORT}})`, 'Bytes that may be lost.'),
  stat('Held requests', 'none', ANY_IS_BAD, `sum(candor_requests_held{${EXPORT}})`, 'They wait for space.'),
  stat('Oldest request', 's', [green, yellow(1), red(30)], `max(candor_oldest_request_age_seconds{${EXPORT}})`),
  stat(
    'Time until full',
    's',
    [red(null), yellow(4 * 3600), { color: 'green', value: 24 * 3600 }],
    `min(candor_backing_seconds_until_full{${SERVER}})`,
  ),
  stat(
    'Injection rules',
    'none',
    [green, yellow(1)],
    `sum(candor_injection_rules{${EXPORT}})`,
    'Errors may be made up.',
  ),
]

const LOAD = [
  lines('Requests', 'reqps', [[rate('candor_requests_total', EXPORT, 'export, command'), '{{export}} {{command}}']]),
  lines('Throughput', 'Bps', [
    [rate('candor_read_bytes_total', EXPORT, 'export'), '{{export}} read'],
    [rate('candor_written_bytes_total', EXPORT, 'export'), '{{export}} written'],
  ]),
  lines('In flight', 'none', [
    [`candor_requests_in_flight{${EXPORT}}`, '{{export}}'],
    [`candor_requests_held{${EXPORT}}`, '{{export}} held'],
  ]),
  lines(
    'Reads and writes that waited for storage',
    'percentunit',
    [
      [
        `${rate('candor_requests_deferred_total', `${EXPORT},command=~"read|write"`, 'export, command')} / ${rate('candor_requests_total', `${EXPORT},command=~"read|write"`, 'export, command')}`,
        '{{export}} {{command}}',
      ],
    ],
    { max: 1, description: 'The others were answered in the turn in which they arrived.' },
  ),
  lines('Connections', 'none', [[`candor_connections{${SERVER}}`, '{{instance}}']]),
  lines('Connections accepted and refused', 'cps', [
    [rate('candor_connections_accepted_total', SERVER, 'instance'), '{{instance}} accepted'],
    [rate('candor_connections_refused_total', SERVER, 'instance'), '{{instance}} refused'],
  ]),
]

const LATENCY_STEPS = { steps: [green, yellow(0.1), red(1)] }
const LATENCY = [
  lines(
    'Reads: median and 99 %',
    's',
    [
      [quantile(0.5, 'read'), '{{export}} median'],
      [quantile(0.99, 'read'), '{{export}} 99 %'],
    ],
    LATENCY_STEPS,
  ),
  lines(
    'Writes: median and 99 %',
    's',
    [
      [quantile(0.5, 'write'), '{{export}} median'],
      [quantile(0.99, 'write'), '{{export}} 99 %'],
    ],
    LATENCY_STEPS,
  ),
  lines(
    'FLUSH: median and 99 %',
    's',
    [
      [quantile(0.5, 'flush'), '{{export}} median'],
      [quantile(0.99, 'flush'), '{{export}} 99 %'],
    ],
    LATENCY_STEPS,
  ),
  lines(
    'Mean by command',
    's',
    [
      [
        `${rate(`${DURATION}_sum`, EXPORT, 'export, command')} / ${rate(`${DURATION}_count`, EXPORT, 'export, command')}`,
        '{{export}} {{command}}',
      ],
    ],
    LATENCY_STEPS,
  ),
  lines('Oldest unanswered request', 's', [[`candor_oldest_request_age_seconds{${EXPORT}}`, '{{export}}']], {
    steps: [green, yellow(1), red(30)],
  }),
  lines(
    'Answers by outcome',
    'reqps',
    [[rate(`${DURATION}_count`, EXPORT, 'export, outcome'), '{{export}} {{outcome}}']],
    {
      description: 'refused: by the operator’s policy, or because the request was at fault. failed: by storage.',
    },
  ),
]

const ERRORS = [
  lines(
    'Errors by errno',
    'reqps',
    [[rate('candor_errors_total', EXPORT, 'export, command, errno'), '{{export}} {{command}} {{errno}}']],
    { steps: [green, red(0.001)], width: 12 },
  ),
  lines(
    'Requests dropped, refused by the reserve, or hit by an injected fault',
    'reqps',
    [
      [rate('candor_requests_dropped_total', EXPORT, 'export'), '{{export}} dropped'],
      [rate('candor_writes_refused_by_reserve_total', EXPORT, 'export'), '{{export}} reserve'],
      [rate('candor_injected_faults_total', EXPORT, 'export'), '{{export}} injected'],
    ],
    { width: 12 },
  ),
  lines('Protocol errors', 'cps', [[rate('candor_protocol_errors_total', SERVER, 'instance, reason'), '{{reason}}']]),
  lines('Failed handshakes', 'cps', [
    [rate('candor_handshake_failures_total', SERVER, 'instance, reason'), '{{reason}}'],
  ]),
  lines('Log lines and ledger entries that were not written', 'none', [
    [rate('candor_log_lines_suppressed_total', SERVER, 'instance, reason'), 'log: {{reason}}'],
    [rate('candor_ledger_entries_lost_total', EXPORT, 'export'), 'ledger: {{export}}'],
  ]),
]

const STATES = [
  lines('State', 'none', [[`candor_export_state{${EXPORT}} == 1`, '{{export}} {{state}}']]),
  lines('Suspect', 'bytes', [[`candor_export_suspect_bytes{${EXPORT}}`, '{{export}}']], { steps: ANY_IS_BAD }),
  lines('Records that cannot be written, unclean ends, injection rules', 'none', [
    [`candor_export_record_failed{${EXPORT}}`, '{{export}} record'],
    [`candor_export_unclean_end{${EXPORT}}`, '{{export}} unclean end'],
    [`candor_injection_rules{${EXPORT}}`, '{{export}} rules'],
  ]),
]

const SPACE = [
  lines('Free', 'bytes', [
    [`candor_backing_free_bytes{${SERVER}}`, '{{mount}} free'],
    [`candor_backing_size_bytes{${SERVER}}`, '{{mount}} size'],
  ]),
  lines('Overcommitted', 'bytes', [[`candor_backing_overcommit_bytes{${SERVER}}`, '{{mount}}']], {
    steps: [green, yellow(1)],
    description: 'What the guests may still allocate, less what is free.',
  }),
  lines('Time until full', 's', [[`candor_backing_seconds_until_full{${SERVER}}`, '{{mount}}']], {
    steps: [red(null), { color: 'green', value: 4 * 3600 }],
  }),
  lines(
    'Images',
    'bytes',
    [
      [`candor_export_allocated_bytes{${EXPORT}}`, '{{export}} allocated'],
      [`candor_export_size_bytes{${EXPORT}}`, '{{export}} size'],
      [`candor_export_reserve_bytes{${EXPORT}}`, '{{export}} reserve'],
    ],
    { width: 12 },
  ),
  lines('Held for', 's', [[`time() - candor_requests_held_since{${EXPORT}}`, '{{export}}']], {
    width: 12,
    steps: ANY_IS_BAD,
  }),
]

const PROCESS = [
  lines('Processor', 'percentunit', [
    [`rate(process_cpu_seconds_total{job="candor",${SERVER}}${WINDOW})`, '{{instance}}'],
  ]),
  lines('Memory', 'bytes', [[`process_resident_memory_bytes{job="candor",${SERVER}}`, '{{instance}}']]),
  lines('File descriptors', 'none', [
    [`process_open_fds{job="candor",${SERVER}}`, '{{instance}} open'],
    [`process_max_fds{job="candor",${SERVER}}`, '{{instance}} limit'],
  ]),
  lines(
    'Heartbeats',
    's',
    [
      [`candor_thread_pulse_age_seconds{${EXPORT}}`, '{{export}}'],
      [`candor_heartbeat_age_seconds{${SERVER}}`, '{{instance}}'],
    ],
    { steps: [green, red(15)] },
  ),
  lines('Up since, and what', 'dateTimeFromNow', [
    [
      `1000 * process_start_time_seconds{job="candor",${SERVER}} * on (instance) group_left (version, node) candor_build_info{${SERVER}}`,
      '{{instance}} candor {{version}}, Node {{node}}',
    ],
  ]),
  lines('I/O engine', 'none', [[`candor_io_engine_info{${SERVER}}`, '{{instance}} {{engine}}']]),
]

const datasource = { type: 'prometheus', uid: '$datasource' }

function panelOf(panel, id, x, y) {
  const { type, title, description, width, height, unit, steps, max, targets } = panel
  return {
    id,
    type,
    title,
    ...(description && { description }),
    datasource,
    gridPos: { x, y, w: width, h: height },
    fieldConfig: {
      defaults: {
        unit,
        ...(max !== undefined && { max }),
        min: type === 'timeseries' && title !== 'Overcommitted' ? 0 : undefined,
        thresholds: { mode: 'absolute', steps },
        ...(type === 'timeseries' && { custom: { thresholdsStyle: { mode: steps.length > 1 ? 'line' : 'off' } } }),
      },
      overrides: [],
    },
    options: type === 'stat' ? { reduceOptions: { calcs: ['lastNotNull'] }, colorMode: 'background' } : {},
    targets: targets.map(([expr, legendFormat], index) => ({
      refId: String.fromCharCode(65 + index),
      datasource,
      expr,
      legendFormat,
    })),
  }
}

function layOut(sections) {
  const panels = []
  let y = 0
  for (const [title, section] of sections) {
    panels.push({
      id: panels.length + 1,
      type: 'row',
      title,
      collapsed: false,
      gridPos: { x: 0, y, w: COLUMNS, h: 1 },
      panels: [],
    })
    y += 1
    let x = 0
    for (const [index, panel] of section.entries()) {
      panels.push(panelOf(panel, panels.length + 1, x, y))
      x += panel.width
      if (x < COLUMNS && index < section.length - 1) continue
      x = 0
      y += panel.height
    }
  }
  return panels
}

function variable(name, label, query) {
  return {
    name,
    label,
    type: 'query',
    datasource,
    query: { query, refId: name },
    refresh: 2,
    multi: true,
    includeAll: true,
    allValue: '.*',
    current: { text: 'All', value: '$__all' },
  }
}

const dashboard = {
  uid: 'candor',
  title: 'candor',
  tags: ['candor', 'nbd'],
  schemaVersion: 38,
  editable: true,
  refresh: '30s',
  time: { from: 'now-1h', to: 'now' },
  templating: {
    list: [
      { name: 'datasource', label: 'Prometheus', type: 'datasource', query: 'prometheus' },
      variable('instance', 'Server', 'label_values(candor_build_info, instance)'),
      variable('export', 'Export', 'label_values(candor_export_size_bytes{instance=~"$instance"}, export)'),
    ],
  },
  panels: layOut([
    ['Overview', OVERVIEW],
    ['Load', LOAD],
    ['Latency', LATENCY],
    ['Errors', ERRORS],
    ['States', STATES],
    ['Space', SPACE],
    ['Process', PROCESS],
  ]),
}

const json = `${JSON.stringify(dashboard, null, 2)}\n`
if (!process.argv.includes('--check')) writeFileSync(OUTPUT, json)
else if (readFileSync(OUTPUT, 'utf8') !== json) {
  process.stderr.write('deploy/grafana/candor.json is not what make.mjs makes: run node deploy/grafana/make.mjs\n')
  process.exit(1)
}
