// Pages on their way to a socket without a copy: whole and in order, never asked for where they are not in memory, and nothing
// of them left behind.
import assert from 'node:assert/strict'
import { closeSync, fsyncSync, ftruncateSync, openSync, readdirSync, readSync, writeFileSync } from 'node:fs'
import { Socket } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { pagePipe, socketPair, WOULD_BLOCK } from '../../backends/index.js'
import { temporaryFolder } from '../support/candor.js'
import { cool } from '../support/cold-images.js'
import { lastFirst, type Scope } from '../support/faults.js'
import { KIB, MIB, pattern } from '../support/large-writes.js'

const BYTES = 4 * MIB
const EPIPE = 32

/** A file in the page cache, and a socket that does not wait with its other end. */
function scene(scope: Scope) {
  const folder = temporaryFolder()
  const path = join(folder.path, 'image')
  const content = pattern(BYTES, 3)
  writeFileSync(path, content)
  const fd = openSync(path, 'r+')
  const [near, far] = socketPair()
  const socket = new Socket({ fd: near })
  let isOpen = true
  const hangUp = () => {
    if (isOpen) closeSync(far)
    isOpen = false
  }
  scope.after(() => {
    hangUp()
    socket.destroy()
    closeSync(fd)
    folder.remove()
  })
  const receive = (length: number) => {
    const bytes = Buffer.alloc(length)
    for (let at = 0; at < length; ) at += readSync(far, bytes, at, length - at, null)
    return bytes
  }
  return { path, fd, near, content, receive, hangUp }
}

for (const [what, offset, length] of [
  ['a page', 0, 4096],
  ['pages', MIB, 128 * KIB],
  ['bytes that begin and end within pages', 5 * KIB + 7, 100 * KIB + 1],
  ['the end of the file', BYTES - 3, 3],
] as const) {
  test(`${what} come to the other end of a socket`, (t) => {
    const { fd, near, content, receive } = scene(lastFirst(t))
    assert.equal(pagePipe.pagesIn(fd, offset, length), 0)
    assert.equal(pagePipe.pagesOut(near, length), length)
    assert.deepEqual(receive(length), content.subarray(offset, offset + length))
  })
}

test('what the socket does not take is taken into memory, in order', (t) => {
  const { fd, near, content, receive } = scene(lastFirst(t))
  const rest = Buffer.alloc(MIB)
  assert.equal(pagePipe.pagesIn(fd, MIB, MIB), 0)
  const sent = pagePipe.pagesOut(near, MIB)
  assert.ok(sent > 0 && sent < MIB, `${sent} bytes`)
  assert.equal(pagePipe.pagesOut(near, MIB - sent), 0)
  pagePipe.pagesTake(rest, 0, MIB - sent)
  const whole = Buffer.concat([receive(sent), rest.subarray(0, MIB - sent)])
  assert.deepEqual(whole, content.subarray(MIB, 2 * MIB))
  assert.throws(() => pagePipe.pagesTake(rest, 0, 1), /has less than it was given/)
})

for (const [what, offset, length, prepare] of [
  ['pages that are not in memory', 0, 128 * KIB, ({ path }) => cool(path)],
  ['what lies beyond the end of the file', BYTES - 64 * KIB, 128 * KIB, () => {}],
  ['bytes that were cut off within a page', 0, 4096, ({ fd }) => ftruncateSync(fd, 100)],
  ['more than a pipe holds', 100, MIB, () => {}],
] satisfies [string, number, number, (scene: { fd: number; path: string }) => void][]) {
  test(`${what} are not put into the pipe, and nothing is left in it`, (t) => {
    const { fd, near, path, receive } = scene(lastFirst(t))
    fsyncSync(fd)
    prepare({ fd, path })
    assert.equal(pagePipe.pagesIn(fd, offset, length), WOULD_BLOCK)
    writeFileSync(path, pattern(4096, 77))
    assert.equal(pagePipe.pagesIn(fd, 0, 4096), 0)
    assert.equal(pagePipe.pagesOut(near, 4096), 4096)
    assert.deepEqual(receive(4096), pattern(4096, 77))
  })
}

test('what is dropped does not come, and what comes behind it does', (t) => {
  const { fd, near, content, receive } = scene(lastFirst(t))
  assert.equal(pagePipe.pagesIn(fd, 0, MIB), 0)
  pagePipe.pagesDrop()
  assert.equal(pagePipe.pagesIn(fd, MIB, 4096), 0)
  assert.equal(pagePipe.pagesOut(near, 4096), 4096)
  assert.deepEqual(receive(4096), content.subarray(MIB, MIB + 4096))
})

test('a peer that has gone is an errno', (t) => {
  const { fd, near, hangUp } = scene(lastFirst(t))
  assert.equal(pagePipe.pagesIn(fd, 0, 4096), 0)
  hangUp()
  assert.equal(pagePipe.pagesOut(near, 4096), -EPIPE)
  pagePipe.pagesDrop()
})

test('a thread has one pipe, however often it is used', (t) => {
  const { fd } = scene(lastFirst(t))
  const open = () => readdirSync('/proc/self/fd').length
  assert.equal(pagePipe.pagesIn(fd, 0, 4096), 0)
  const before = open()
  for (let round = 0; round < 100; round++) {
    pagePipe.pagesDrop()
    assert.equal(pagePipe.pagesIn(fd, 0, 4096), 0)
  }
  assert.equal(open(), before)
  pagePipe.pagesDrop()
  assert.equal(open(), before - 2)
})
