// The handbook's pages as HTML: the few forms of Markdown that docs/ uses, with headings that can be linked to. Law:
// everything is escaped before anything is made of it.

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
}

/** The anchor of a heading, as GitHub makes it. */
export function slugOf(heading: string): string {
  const plain = heading.toLowerCase().replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
  return plain.trim().replaceAll(' ', '-')
}

/** Only places of this server: a page that works without internet has no other links. */
function link(text: string, target: string): string {
  const page = /^([a-z-]+)\.md(#[\w-]*)?$/.exec(target)
  if (page !== null) return `<a href="/docs/${page[1]}${page[2] ?? ''}">${text}</a>`
  return target.startsWith('#') ? `<a href="${target}">${text}</a>` : text
}

function inline(text: string): string {
  return escaped(text)
    .split(/(`[^`]+`)/)
    .map((part) =>
      part.startsWith('`')
        ? `<code>${part.slice(1, -1)}</code>`
        : part
            .replaceAll(/\*\*([^*]+)\*\*/g, '<strong>$1</strong>')
            .replaceAll(/\*([^*\s][^*]*)\*/g, '<em>$1</em>')
            .replaceAll(/\[([^\]]+)\]\(([^)\s]+)\)/g, (_all, label: string, target: string) => link(label, target)),
    )
    .join('')
}

function table(rows: readonly string[]): string {
  const cells = rows.map((row) => row.replace(/^\||\|$/g, '').split(/(?<!\\)\|/))
  const line = (row: readonly string[], tag: string) =>
    `<tr>${row.map((cell) => `<${tag}>${inline(cell.trim())}</${tag}>`).join('')}</tr>`
  const [head = [], , ...body] = cells
  const rest = body.map((row) => line(row, 'td')).join('')
  return `<div class="table" tabindex="0"><table><thead>${line(head, 'th')}</thead><tbody>${rest}</tbody></table></div>`
}

function listItems(lines: readonly string[]): string {
  const items: string[] = []
  for (const row of lines) {
    if (/^[*-] /.test(row)) items.push(row.slice(2))
    else items.push(`${items.pop() ?? ''} ${row.trim()}`)
  }
  return `<ul>${items.map((item) => `<li>${inline(item)}</li>`).join('')}</ul>`
}

function block(lines: readonly string[]): string {
  const [first = ''] = lines
  const [, level, heading] = /^(#{1,4}) (.*)$/.exec(first) ?? []
  if (level !== undefined && heading !== undefined) {
    const made = `<h${level.length} id="${slugOf(heading)}">${inline(heading)}</h${level.length}>`
    return lines.length === 1 ? made : `${made}\n${block(lines.slice(1))}`
  }
  if (first.startsWith('```')) return `<pre><code>${escaped(lines.slice(1, -1).join('\n'))}</code></pre>`
  if (first.startsWith('|')) return table(lines)
  if (/^[*-] /.test(first)) return listItems(lines)
  return `<p>${inline(lines.join(' '))}</p>`
}

/** Blocks are parted by empty lines; those within a fence belong to it. */
function blocksOf(text: string): string[][] {
  const blocks: string[][] = [[]]
  let fenced = false
  for (const row of text.split('\n')) {
    if (row.startsWith('```')) fenced = !fenced
    if (row === '' && !fenced) blocks.push([])
    else blocks.at(-1)?.push(row)
  }
  return blocks.filter((rows) => rows.length > 0)
}

/** The body of a page. */
export function htmlOf(markdown: string): string {
  return blocksOf(markdown).map(block).join('\n')
}
