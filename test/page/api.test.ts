// The JSON side of HTTP against a running server: its schemas, its refusals, and that it only ever reads.
import assert from 'node:assert/strict'
import { request } from 'node:http'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { Ajv2020 } from 'ajv/dist/2020.js'
import formats from 'ajv-formats'
import { temporaryFolder } from '../support/candor.js'
import { attach, command, lastFirst, type Scope, serve } from '../support/faults.js'

interface Schemas {
  readonly paths: Readonly<Record<string, string>>
  readonly schemas: Readonly<Record<string, object>>
}

interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: string
}

/** A request as it is written here, which fetch would mend. */
function ask(url: string, path: string, method = 'GET', headers: Record<string, string> = {}): Promise<Answer> {
  const { hostname, port } = new URL(url)
  return new Promise((resolve, reject) => {
    const asked = request({ hostname, port, path, method, headers, agent: false }, (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        body += chunk
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }))
    })
    asked.on('error', reject).end()
  })
}

function errorIn({ body }: Answer): string {
  return (JSON.parse(body) as { error: string }).error
}

/** The first event of a feed. */
async function firstEvent(url: string): Promise<unknown> {
  const controller = new AbortController()
  const response = await fetch(url, { signal: controller.signal })
  let text = ''
  for await (const chunk of response.body ?? []) {
    text += Buffer.from(chunk).toString()
    if (text.includes('\n\n')) break
  }
  controller.abort()
  return JSON.parse(/^data: (.*)$/m.exec(text)?.[1] ?? '')
}

/** Exports in every health that can be made by injection: 'well', 'failing', 'held', 'degraded'. */
async function everyHealth(scope: Scope) {
  const folder = temporaryFolder()
  scope.after(() => folder.remove())
  const images = ['well', 'failing', 'held', 'degraded'].map((name) => `${name}=${join(folder.path, name)}`)
  const state = join(folder.path, 'state')
  const candor = await serve(scope, [...images, '--create', '8M', '--state-dir', state, '--on-enospc', 'hold'])
  const inject = async (name: string, rule: string) => {
    assert.equal((await command(['ctl', 'inject', name, rule, '--state-dir', state])).code, 0)
  }
  const uri = (name: string) => candor.uris.find((one) => one.endsWith(`/${name}`)) ?? ''
  await inject('failing', 'write:EIO@1M-2M')
  await inject('held', 'write:ENOSPC@1M-2M')
  await inject('degraded', 'flush:EIO,count=1')
  const clients = await Promise.all(['well', 'failing', 'held', 'degraded'].map((name) => attach(uri(name))))
  const [well, failing, held, degraded] = clients
  await well?.write(0, Buffer.alloc(4096, 1))
  await assert.rejects(async () => failing?.write(1 << 20, Buffer.alloc(4096)))
  held?.write(1 << 20, Buffer.alloc(4096)).catch(() => undefined)
  await degraded?.write(0, Buffer.alloc(4096, 1))
  await assert.rejects(async () => degraded?.flush())
  while ((await candor.metrics()).get('candor_requests_held{export="held"}') !== 1) {}
  return { candor, state, url: candor.httpUrl ?? '' }
}

describe('the API of a server with exports in every health', () => {
  test('answers by its own schemas on every path, tells degraded and held from ready, and reads only', async (t) => {
    const { candor, state, url } = await everyHealth(lastFirst(t))
    const { paths, schemas } = (await (await fetch(`${url}/api/schema`)).json()) as Schemas
    const validator = new Ajv2020({ allErrors: true })
    formats.default(validator)
    const conforms = (name: string, value: unknown) => {
      assert.ok(validator.validate(schemas[name] ?? {}, value), `${name}: ${JSON.stringify(validator.errors)}`)
    }
    while (errorsSeen(await (await fetch(`${url}/api/exports/failing`)).json()) === 0) {}
    for (const [path, schema] of Object.entries(paths)) {
      for (const name of path.includes('{name}') ? ['well', 'failing', 'held', 'degraded'] : ['']) {
        const at = `${url}${path.replace('{name}', name)}`
        conforms(
          schema,
          path === '/api/events' ? await firstEvent(`${at}?export=held`) : await (await fetch(at)).json(),
        )
      }
    }
    conforms('error', await (await fetch(`${url}/api/exports/nope`)).json())

    const ready = await fetch(`${url}/readyz`)
    const { reasons, exports } = (await ready.json()) as {
      reasons: string[]
      exports: { name: string; health: string }[]
    }
    assert.equal(ready.status, 503)
    assert.deepEqual(reasons.sort(), ['degraded is degraded', 'held is held'])
    const healths = Object.fromEntries(exports.map(({ name, health }) => [name, health]))
    assert.deepEqual(healths, { degraded: 'degraded', held: 'held', failing: 'failing', well: 'ok' })

    const { problems } = (await (await fetch(`${url}/api/problems`)).json()) as { problems: Record<string, string>[] }
    const told = problems.map((problem) => `${problem['export']}: ${problem['title']}`)
    assert.ok(told.includes('degraded: writes that were acknowledged may be lost (EIO)'), told.join('\n'))
    assert.ok(told.includes("held: the host's disk is full; 1 write waits for space"), told.join('\n'))
    assert.ok(
      told.includes('failing: the host cannot read or write it, or fault injection makes it so'),
      told.join('\n'),
    )

    // What the API names as a remedy works, and then it is ready.
    assert.equal((await command(['ctl', 'inject', 'held', 'off', '--state-dir', state])).code, 0)
    assert.equal((await command(['ctl', 'resume', 'degraded', '--state-dir', state])).code, 0)
    while ((await candor.metrics()).get('candor_requests_held{export="held"}') !== 0) {}
    assert.equal((await fetch(`${url}/readyz`)).status, 200)
  })
})

function errorsSeen(view: unknown): number {
  return (view as { errors: unknown[] }).errors.length
}

describe('the HTTP side refuses', () => {
  test('what is unknown, malformed, of another method, or asked under a foreign name, in JSON that names it', async (t) => {
    const scope = lastFirst(t)
    const folder = temporaryFolder()
    scope.after(() => folder.remove())
    const image = `a%2Fb=${join(folder.path, 'x')}`
    const words = [image, '--create', '1M', '--http-name', 'storage.example', '--http-watchers-max', '2']
    const candor = await serve(scope, words)
    const url = candor.httpUrl ?? ''
    const name = encodeURIComponent('a%2Fb')
    assert.equal((await ask(url, `/api/exports/${name}/map?cells=2`)).status, 200)

    const unknown = await ask(url, '/api/exports/nope/map')
    assert.deepEqual([unknown.status, errorIn(unknown)], [404, "there is no export 'nope': /api/exports lists them"])
    for (const [query, named] of [
      ['cells=x', 'cells'],
      ['cells=0', 'cells'],
      ['cells=16385', 'cells'],
      ['from=-1', 'from'],
      ['from=1048576', 'from'],
      ['to=1048577', 'to'],
      ['from=512&to=512', 'to'],
      ['from=1&from=2', 'from'],
      ['to=1e3', 'to'],
    ] as const) {
      const answer = await ask(url, `/api/exports/${name}/map?${query}`)
      assert.equal(answer.status, 400, query)
      assert.match(errorIn(answer), new RegExp(`^${named} `), query)
      assert.match(String(answer.headers['content-type']), /^application\/json/)
    }
    assert.match(errorIn(await ask(url, '/api/exports?count=101')), /^count is '101'/)
    assert.match(errorIn(await ask(url, `/api/exports?q=${'x'.repeat(5000)}`)), /^q has more than/)
    assert.equal((await ask(url, '/api/exports/%zz')).status, 400)
    assert.equal((await ask(url, '/nothing')).status, 404)

    for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) {
      const { status, headers } = await ask(url, '/api/exports', method)
      assert.deepEqual([status, headers['allow']], [405, 'GET, HEAD'], method)
    }
    assert.equal((await ask(url, '/metrics', 'HEAD')).status, 200)

    for (const host of ['evil.example', '127.0.0.1.evil.example', 'a b', 'storage.example.evil', '[::1', '1.2.3.4.5']) {
      const { status } = await ask(url, '/api/exports', 'GET', { host })
      assert.ok(status === 421 || status === 400, `${host}: ${status}`)
    }
    for (const host of ['localhost', 'localhost:1', '127.0.0.1', '[::1]:80', '10.1.2.3:9809', 'Storage.Example:9809']) {
      assert.equal((await ask(url, '/api/exports', 'GET', { host })).status, 200, host)
    }
    const { headers } = await ask(url, '/')
    assert.match(String(headers['content-security-policy']), /default-src 'none'; script-src 'self';/)
    assert.doesNotMatch(String(headers['content-security-policy']), /unsafe/)
    assert.equal(headers['x-content-type-options'], 'nosniff')
  })

  test('a name for HTTP that is none is refused in a sentence', async () => {
    const { code, stderr } = await command(['serve', 'x.img', '--http-name', 'http://x/'])
    assert.equal(code, 1)
    assert.match(
      stderr,
      /^candor: --http-name is 'http:\/\/x\/': write a host's name without port, such as storage.example\n/,
    )
  })
})
