// What a TLS upgrade leaves of the handshake: nothing that was settled in the clear ("NBD_OPT_STARTTLS").
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Handshake, type HandshakeHost } from 'nbd-protocol'
import { contextData, FLAGS, GREETING, hex, infoData, option, optionReply, raw, text } from '../support/raw-bytes.js'
import { HOST, LIMITS } from '../support/raw-conversation.js'

const STRUCTURED = 8
const SET_CONTEXT = 10
const EXTENDED = 11
const STARTTLS = 5
const GO = 7

function upgraded(tls: HandshakeHost['tls'], ...before: readonly Uint8Array[]): Handshake {
  const handshake = new Handshake({ ...HOST, tls }, LIMITS)
  handshake.receive(raw(FLAGS, ...before, option(STARTTLS)))
  assert.deepEqual(handshake.outcome, { kind: 'starttls' })
  handshake.takeReplies()
  handshake.secured()
  assert.equal(handshake.outcome, undefined)
  return handshake
}

function replies(handshake: Handshake): string {
  return hex(raw(...handshake.takeReplies()))
}

test('the greeting is that of a fixed newstyle server that may leave the zeroes out', () => {
  assert.equal(hex(new Handshake(HOST, LIMITS).greeting()), hex(raw(GREETING)))
})

test('bytes behind STARTTLS are left unread, as an attacker may have put them there', () => {
  const handshake = new Handshake({ ...HOST, tls: 'allow' }, LIMITS)
  const sends = raw(FLAGS, option(STARTTLS))
  assert.equal(handshake.receive(raw(sends, option(GO, infoData('disk')))), sends.length)
  assert.equal(handshake.receive(text('more')), 0)
  assert.equal(replies(handshake), hex(optionReply(STARTTLS, 1)))
})

for (const style of [STRUCTURED, EXTENDED]) {
  test(`after the upgrade neither the reply style of option ${style} nor its contexts are left`, () => {
    const handshake = upgraded('allow', option(style), option(SET_CONTEXT, contextData('disk', 'base:allocation')))
    handshake.receive(option(GO, infoData('disk')))
    const told = optionReply(GO, 3, '0000 0000123456789a00 002d')
    assert.equal(replies(handshake), hex(raw(told, optionReply(GO, 1))))
    assert.deepEqual(handshake.outcome, {
      kind: 'transmission',
      exportName: 'disk',
      replyStyle: 'simple',
      transmissionFlags: 0x2d,
      knowsBlockSizes: false,
      contexts: [],
    })
  })
}

test('after the upgrade contexts of the same export need a reply style again, and a selection again', () => {
  const handshake = upgraded('require')
  handshake.receive(option(SET_CONTEXT, contextData('disk', 'base:allocation')))
  assert.match(replies(handshake), /^0003e889045565a90000000a80000003/)
  handshake.receive(raw(option(STRUCTURED), option(SET_CONTEXT, contextData('disk', 'base:allocation'))))
  const selected = optionReply(SET_CONTEXT, 4, '00000001', text('base:allocation'))
  assert.equal(replies(handshake), hex(raw(optionReply(STRUCTURED, 1), selected, optionReply(SET_CONTEXT, 1))))
})

test('after the upgrade nothing is answered with TLS_REQD, and a second STARTTLS is invalid', () => {
  const handshake = upgraded('require')
  handshake.receive(raw(option(STARTTLS), option(99)))
  assert.match(replies(handshake), /^0003e889045565a90000000580000003.*0003e889045565a90000006380000001/)
  handshake.receive(option(1, text('disk')))
  assert.equal(replies(handshake), '0000123456789a00002d', 'the client flags of the clear hold: no zeroes')
  assert.equal(handshake.outcome?.kind, 'transmission')
})
