// `npm run bench -- --plot [AXIS,…]`: measures how the cost grows, axis after axis, and renews what docs/performance.md and
// docs/plots tell of them.
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { connections, exports, images, inFolder } from './growth-axes.js'
import { type Axis, type Growth, growthTable, plotOf, steepest } from './growth-axis.js'
import { extents, suspects } from './growth-pieces.js'
import type { Machine } from './machine.js'
import { svgOf } from './plot.js'

export const AXES: readonly Axis[] = [connections, exports, images, extents, suspects]
const LEFT_OUT =
  'Larger sizes were left out, since this file system is mounted with `discard` and would take minutes to remove such an image; `--dir` names another.'
const DOCS = fileURLToPath(new URL('../../docs/', import.meta.url))

/** Measures the axes in `folder`, prints their tables, and writes the documents. */
export async function measureGrowth(
  axes: readonly Axis[],
  folder: string,
  machine: Machine,
  progress: (line: string) => void,
): Promise<void> {
  mkdirSync(join(DOCS, 'plots'), { recursive: true })
  for (const axis of axes) {
    const figures: number[][] = []
    const sizes = axis.sizes.filter((size) => size <= (axis.discardedMax ?? size) || !discards(folder))
    for (const size of sizes) {
      const began = performance.now()
      figures.push(await inFolder(folder, (own) => axis.measure(size, own)))
      progress(`${axis.sizeOf(size)} ${axis.name}: ${((performance.now() - began) / 1000).toFixed(1)} s`)
    }
    const growth = { axis, sizes, figures }
    writeFileSync(join(DOCS, 'plots', `growth-${axis.name}.svg`), svgOf(plotOf(growth)))
    const words = sectionOf(growth, machine)
    process.stdout.write(`${words}\n`)
    const document = join(DOCS, 'performance.md')
    writeFileSync(document, withSection(readFileSync(document, 'utf8'), axis.name, words))
  }
}

/** Whether the file system of a folder is mounted with `discard` (proc(5): the last field of mountinfo). */
function discards(folder: string): boolean {
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').trimEnd().split('\n')
  const { dev } = statSync(folder)
  const device = `${(dev >> 8) & 0xfff}:${dev & 0xff}`
  return lines.some((line) => line.split(' ')[2] === device && line.split(' ').at(-1)?.split(',').includes('discard'))
}

function sectionOf(growth: Growth, { cpu, cores, kernel, node, loadBefore, fileSystem }: Machine): string {
  const { axis } = growth
  const day = new Date().toISOString().slice(0, 10)
  const where = `${day}, ${cores} processors (${cpu}), Linux ${kernel}, ${fileSystem}, Node ${node}, load ${loadBefore.toFixed(1)} before`
  return [
    `### By ${axis.sizesName}`,
    `${axis.how} (${where}.)`,
    growthTable(growth),
    steepest(growth),
    ...(growth.sizes.length === axis.sizes.length ? [] : [LEFT_OUT]),
    `![The table as a plot, with logarithms on both axes](plots/growth-${axis.name}.svg)`,
  ].join('\n\n')
}

/** The document with the part between an axis's two markers renewed. */
export function withSection(document: string, name: string, words: string): string {
  const [begin, end] = [`<!-- growth of ${name}: npm run bench -- --plot ${name} -->`, `<!-- end of ${name} -->`]
  const [from, to] = [document.indexOf(begin), document.indexOf(end)]
  if (from === -1 || to < from) throw new Error(`docs/performance.md has lost the markers '${begin}' and '${end}'`)
  return `${document.slice(0, from + begin.length)}\n${words}\n${document.slice(to)}`
}
