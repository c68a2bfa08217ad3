// Who is connected. Asked every few seconds, and bounded: the rest is counted.
import { ask } from './feed.js'
import { byId, element, grouped, plural, say, span } from './words.js'

interface Session {
  readonly peer: string
  readonly subject?: string
  readonly tls: boolean
  readonly export?: string
  readonly ageSeconds: number
  readonly inFlight?: number
}

const EVERY_MS = 3000
const SHOWN_MAX = 50

function tlsWords({ tls, subject }: Session): string {
  return tls ? (subject ?? 'yes, no client certificate') : 'no'
}

function row(session: Session): HTMLElement {
  const { peer, ageSeconds, inFlight } = session
  return element(
    'tr',
    {},
    element('td', { class: 'name' }, peer),
    element('td', { class: 'name' }, session.export ?? 'attaching'),
    element('td', { class: 'number' }, span(ageSeconds)),
    element('td', { class: 'name' }, tlsWords(session)),
    element('td', { class: 'number' }, inFlight === undefined ? 'not known' : grouped(inFlight)),
  )
}

async function update(): Promise<void> {
  const words = byId('sessions-words', HTMLElement)
  try {
    const { sessions } = await ask<{ sessions: readonly Session[] }>('/api/sessions')
    byId('sessions', HTMLTableElement).tBodies[0]?.replaceChildren(...sessions.slice(0, SHOWN_MAX).map(row))
    const hidden = sessions.length - SHOWN_MAX
    say(
      words,
      sessions.length === 0 ? 'Nobody is connected.' : hidden > 0 ? `and ${plural(hidden, 'more session')}` : '',
    )
  } catch (error) {
    say(words, `Not known now: ${(error as Error).message}`)
  }
}

/** Keeps the table up to date from now on, while somebody looks. */
export function watchSessions(): void {
  const again = async () => {
    if (document.visibilityState === 'visible') await update()
    setTimeout(again, EVERY_MS)
  }
  void again()
}
