// The ledger: neighbours become one line, nothing is lost in silence, and its disk may fail without hurting anybody.
import assert from 'node:assert/strict'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { Ledger, ledgerPath, parseLedger } from '../../server/state/ledger.js'
import { temporaryFolder } from '../support/candor.js'

const folder = temporaryFolder()
after(() => folder.remove())

describe('the ledger of an export', () => {
  test('keeps neighbouring failures of a kind as one entry, also when they come a little out of order', async () => {
    const path = ledgerPath(folder.path, 'a/b')
    const ledger = new Ledger(path, () => assert.fail('nothing may be lost'))
    for (const index of [0, 2, 1, 3]) ledger.note('unix', 'write', 'ENOSPC', index * 4096, 4096)
    ledger.note('unix', 'write', 'EIO', 4 * 4096, 4096)
    ledger.note('unix', 'read', 'EIO', 4 * 4096, 4096)
    await ledger.flush()
    const { entries, damaged } = parseLedger(readFileSync(path, 'utf8'))
    assert.equal(damaged, 0)
    const told = entries.map(({ command, errno, offset, length, count }) => [command, errno, offset, length, count])
    const space = told.filter(([, errno]) => errno === 'ENOSPC')
    assert.equal(
      space.reduce((sum, entry) => sum + Number(entry[4]), 0),
      4,
    )
    assert.deepEqual(told.slice(-2), [
      ['write', 'EIO', 16_384, 4096, 1],
      ['read', 'EIO', 16_384, 4096, 1],
    ])
  })

  test('tells of lines that it could not write, and goes on', async () => {
    let lost = 0
    const ledger = new Ledger(join(folder.path, 'no-such-folder', 'x'), (entries) => {
      lost += entries
    })
    ledger.note('unix', 'write', 'EIO', 0, 512)
    await ledger.flush()
    ledger.note('unix', 'write', 'EIO', 0, 512)
    await ledger.flush()
    assert.equal(lost, 2)
  })

  test('begins a new file when the old one is full, and keeps that one beside it', async () => {
    const path = ledgerPath(folder.path, 'large')
    writeFileSync(path, `${'x'.repeat(9 << 20)}\n`)
    const ledger = new Ledger(path, () => assert.fail('nothing may be lost'))
    ledger.note('unix', 'write', 'EIO', 0, 512)
    await ledger.flush()
    assert.equal(parseLedger(readFileSync(path, 'utf8')).entries.length, 1)
    assert.equal(readFileSync(`${path}.1`).length, (9 << 20) + 1)
  })

  test('with damaged lines gives the others', () => {
    const line =
      '{"time":"2026-11-20T14:03:00.000Z","client":"unix","command":"read","offset":0,"length":1,"errno":"EIO","count":1}'
    const { entries, damaged } = parseLedger(`${line}\n{"off\n\n{"offset":2}\nnull\n${line}\n`)
    assert.deepEqual([entries.length, damaged], [2, 3])
  })

  test('keeps no more than the latest 4,096 runs in memory', async () => {
    const ledger = new Ledger(ledgerPath(folder.path, 'many'), () => assert.fail('nothing may be lost'))
    for (let run = 0; run < 4097; run++) ledger.note('unix', 'write', 'EIO', run * 8192, 4096)
    await ledger.flush()
    const recent = [...ledger.recent()]
    assert.deepEqual([recent.length, recent[0]?.offset], [4096, 8192])
  })

  test('keeps the latest runs in memory, those of earlier servers and those that could not be written as well', async () => {
    const path = ledgerPath(folder.path, 'recent')
    const earlier = new Ledger(path, () => assert.fail('nothing may be lost'))
    earlier.note('unix', 'write', 'EIO', 0, 512)
    await earlier.flush()
    const ledger = new Ledger(path, () => {})
    rmSync(folder.path, { recursive: true })
    ledger.note('unix', 'write', 'ENOSPC', 4096, 512)
    await ledger.flush()
    ledger.note('unix', 'write', 'EFBIG', 8192, 512)
    assert.deepEqual(
      [...ledger.recent()].map(({ errno }) => errno),
      ['EIO', 'ENOSPC', 'EFBIG'],
    )
    await ledger.flush()
  })
})
