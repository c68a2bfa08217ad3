// The alert rules as an operator gets them: sound for promtool, each tested firing and quiet, each with its page.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { temporaryFolder } from '../support/candor.js'
import { projectFile } from '../support/prometheus.js'
import { needs } from '../support/requirements.js'

const RULES = projectFile('deploy/prometheus/candor.rules.yml')
const TESTS = projectFile('deploy/prometheus/candor.rules.test.yml')

const rules = readFileSync(RULES, 'utf8')
const alerts = [...rules.matchAll(/^ {6}- alert: (\w+)$/gm)].map((match) => match[1] ?? '')

function promtool(...args: string[]): string {
  return execFileSync('promtool', args, { encoding: 'utf8', stdio: 'pipe' })
}

/** The anchor under which a heading can be linked to. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^\w\- ]/g, '')
    .replaceAll(' ', '-')
}

describe('alert rules', () => {
  test('promtool finds them sound', { skip: needs('promtool') }, () => {
    assert.match(promtool('check', 'rules', RULES), new RegExp(`SUCCESS: ${alerts.length} rules found`))
  })

  test('each fires when it should and is quiet when it should', { skip: needs('promtool') }, () => {
    promtool('test', 'rules', TESTS)
  })

  test("the README's scrape configuration is sound, with the rules beside it", { skip: needs('promtool') }, (t) => {
    const config = /```yaml\n(.*?)```/s.exec(readFileSync(projectFile('README.md'), 'utf8'))?.[1] ?? ''
    const folder = temporaryFolder()
    t.after(() => folder.remove())
    copyFileSync(RULES, join(folder.path, 'candor.rules.yml'))
    writeFileSync(join(folder.path, 'prometheus.yml'), config)
    assert.match(promtool('check', 'config', join(folder.path, 'prometheus.yml')), /SUCCESS: 1 rule files found/)
  })

  test('there is a firing and a quiet case for each', () => {
    const cases = readFileSync(TESTS, 'utf8')
      .split(/^ {2}- name: /m)
      .slice(1)
      .map((text) => ({ alert: /alertname: (\w+)/.exec(text)?.[1] ?? '', fires: !text.includes('exp_alerts: []') }))
    for (const alert of alerts) {
      const its = cases.filter((one) => one.alert === alert)
      assert.ok(
        its.some(({ fires }) => fires),
        `${alert} is nowhere tested to fire`,
      )
      assert.ok(
        its.some(({ fires }) => !fires),
        `${alert} is nowhere tested to be quiet`,
      )
    }
    assert.ok(cases.every(({ alert }) => alerts.includes(alert)))
  })

  test('each has a severity, a summary, a description, and a heading in docs/errors.md that its runbook leads to', () => {
    const headings = [...readFileSync(projectFile('docs/errors.md'), 'utf8').matchAll(/^#+ (.+)$/gm)]
    const anchors = new Set(headings.map((match) => anchorOf(match[1] ?? '')))
    const texts = rules.split(/^ {6}- alert: /m).slice(1)
    assert.equal(texts.length, alerts.length)
    for (const text of texts) {
      assert.match(text, /^ {10}severity: (critical|warning|info)$/m)
      assert.match(text, /^ {10}summary: \S/m)
      assert.match(text, /^ {10}description: \S/m)
      const anchor = /^ {10}runbook: docs\/errors\.md#(\S+)$/m.exec(text)?.[1] ?? `no runbook in ${text}`
      assert.ok(anchors.has(anchor), anchor)
    }
  })
})
