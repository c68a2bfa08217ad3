// The packages stand alone: their sources import nothing but each other, and name nothing that only Node has.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const PACKAGES = ['nbd', 'vhost-user'].map((name) => {
  const folder = fileURLToPath(new URL(`../../../protocol/${name}`, import.meta.url))
  const sources = readdirSync(folder)
    .filter((file) => file.endsWith('.ts'))
    .map((file) => ({ name: file, text: readFileSync(join(folder, file), 'utf8') }))
  return { name: `${name}-protocol`, folder, sources }
})

for (const { name: title, folder, sources } of PACKAGES) {
  test(`every import of ${title} names a file beside it`, () => {
    const names = new Set(sources.map(({ name }) => `./${name.replace(/ts$/, 'js')}`))
    let imports = 0
    for (const { name, text } of sources) {
      for (const [, from = ''] of text.matchAll(/\b(?:from|import|require)\s*\(?\s*['"]([^'"\s]+)['"]/g)) {
        imports += 1
        assert.ok(names.has(from), `${name} imports ${from}`)
      }
    }
    assert.ok(imports > 20, 'the reader of imports finds them')
  })

  test(`${title} depends on no package, and its code names nothing that only Node has`, () => {
    const manifest: unknown = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
    assert.deepEqual(
      Object.keys(manifest as object).filter((key) => /dependencies/i.test(key)),
      [],
    )
    const foreign = /\b(?:Buffer|process|setTimeout|setImmediate|queueMicrotask|require|globalThis|__dirname)\b(?=[.(])/
    for (const { name, text } of sources) {
      const code = text.replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*/g, '')
      assert.doesNotMatch(code, foreign, name)
    }
  })
}
