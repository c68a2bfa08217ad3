// Who may ask, and how. Law: nothing here changes state; a page of somebody else's, whose name was made to lead here
// (DNS rebinding), is not answered.
import { isIP } from 'node:net'
import type { FastifyInstance } from 'fastify'

const METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD'])

/** Everything comes from here, nothing is written into the page by others, and nobody may put it into a frame. */
const HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store',
}

/** The name in a Host header, without port and brackets; undefined when it is none. */
function hostName(host: string): string | undefined {
  const [, bracketed, plain] = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::\d{1,5})?$/i.exec(host) ?? []
  return bracketed ?? plain
}

/** Addresses, localhost and the names that the operator gave may be asked for; a name that leads here by chance may not. */
export function isHostAllowed(host: string | undefined, names: readonly string[]): boolean {
  const name = hostName(host ?? '')
    ?.toLowerCase()
    .replace(/\.$/, '')
  if (name === undefined) return false
  return isIP(name) !== 0 || name === 'localhost' || name.endsWith('.localhost') || names.includes(name)
}

export function guard(app: FastifyInstance, names: readonly string[]): void {
  const known = names.map((name) => name.toLowerCase())
  app.addHook('onRequest', async (request, reply) => {
    reply.headers(HEADERS)
    if (!METHODS.has(request.method)) {
      return reply.code(405).header('allow', 'GET, HEAD').send({ error: 'this server only answers GET and HEAD' })
    }
    if (isHostAllowed(request.headers.host, known)) return
    return reply.code(421).send({
      error:
        'this name is not one of this server: ask for an address or localhost, or start candor with --http-name NAME',
    })
  })
}
