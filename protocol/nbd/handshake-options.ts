// The options that this server knows, one row each, and what each row does. A handler answers through
// `negotiated.reply` and returns an outcome only where the handshake ends.
import { setUint64, viewOf } from './bytes.js'
import {
  NBD_FLAG_BLOCK_STATUS_PAYLOAD,
  NBD_FLAG_SEND_DF,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_NAME,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ACK,
  NBD_REP_ERR_EXT_HEADER_REQD,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_POLICY,
  NBD_REP_ERR_SHUTDOWN,
  NBD_REP_ERR_TLS_REQD,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_INFO,
  NBD_REP_META_CONTEXT,
  NBD_REP_SERVER,
  optionName,
} from './constants.js'
import type { HandshakeExport, HandshakeHost, HandshakeOutcome } from './handshake-host.js'
import { matchingContexts } from './meta-context.js'
import type { Negotiated } from './negotiated.js'
import {
  decodeInfoRequest,
  decodeMetaContextRequest,
  decodeName,
  EXPORT_NAME_ZEROES,
  encodeInfoBlockSize,
  encodeInfoExport,
  encodeInfoText,
  encodeMetaContext,
  encodeOptionReply,
  encodeServer,
} from './options.js'
import { ProtocolError } from './protocol-error.js'
import { errorMessage } from './reply.js'

const NOTHING = new Uint8Array(0)

interface Call {
  readonly option: number
  readonly data: Uint8Array
  readonly host: HandshakeHost
  readonly negotiated: Negotiated
}

interface OptionRule {
  /** `none`: data is refused with NBD_REP_ERR_INVALID. */
  readonly data: 'none' | 'any'
  /** Also answered while TLS is still demanded, and while the server shuts down. */
  readonly always?: true
  readonly handle: (call: Call) => HandshakeOutcome | undefined
}

export const OPTIONS: Readonly<Record<number, OptionRule>> = {
  [NBD_OPT_EXPORT_NAME]: { data: 'any', always: true, handle: exportName },
  [NBD_OPT_ABORT]: { data: 'any', always: true, handle: abort },
  [NBD_OPT_LIST]: { data: 'none', handle: list },
  [NBD_OPT_STARTTLS]: { data: 'none', always: true, handle: startTls },
  [NBD_OPT_INFO]: { data: 'any', handle: infoOrGo },
  [NBD_OPT_GO]: { data: 'any', handle: infoOrGo },
  [NBD_OPT_STRUCTURED_REPLY]: { data: 'none', handle: structuredReply },
  [NBD_OPT_LIST_META_CONTEXT]: { data: 'any', handle: metaContext },
  [NBD_OPT_SET_META_CONTEXT]: { data: 'any', handle: metaContext },
  [NBD_OPT_EXTENDED_HEADERS]: { data: 'none', handle: extendedHeaders },
}

/** Answers one known option. @throws ProtocolError where the spec leaves no reply but the end of the session */
export function handleOption(
  option: number,
  data: Uint8Array,
  host: HandshakeHost,
  negotiated: Negotiated,
): HandshakeOutcome | undefined {
  const rule = OPTIONS[option]
  if (rule === undefined) throw new TypeError(`${optionName(option)} has no row in the table of options`)
  const call: Call = { option, data, host, negotiated }
  if (!rule.always && host.tls === 'require' && !negotiated.secure) {
    return refuse(call, NBD_REP_ERR_TLS_REQD, 'this server talks of nothing before NBD_OPT_STARTTLS')
  }
  if (!rule.always && host.shuttingDown) return refuse(call, NBD_REP_ERR_SHUTDOWN, 'the server is shutting down')
  if (rule.data === 'none' && data.length > 0) {
    return refuse(call, NBD_REP_ERR_INVALID, `${optionName(option)} takes no data`)
  }
  return rule.handle(call)
}

function answer(call: Call, type: number, data: Uint8Array): undefined {
  call.negotiated.reply(encodeOptionReply(call.option, type, data))
}

function refuse(call: Call, error: number, message: string): undefined {
  return answer(call, error, errorMessage(message))
}

function abort(call: Call): HandshakeOutcome {
  answer(call, NBD_REP_ACK, NOTHING)
  return { kind: 'abort' }
}

function list(call: Call): undefined {
  for (const { name, description } of call.host.list()) answer(call, NBD_REP_SERVER, encodeServer(name, description))
  answer(call, NBD_REP_ACK, NOTHING)
}

function startTls(call: Call): HandshakeOutcome | undefined {
  const { host, negotiated } = call
  if (negotiated.secure) return refuse(call, NBD_REP_ERR_INVALID, 'TLS is already in use')
  if (host.shuttingDown) return refuse(call, NBD_REP_ERR_SHUTDOWN, 'the server is shutting down')
  if (host.tls === 'off' || !negotiated.fixedNewstyle) {
    return refuse(call, NBD_REP_ERR_POLICY, 'this server is configured without TLS')
  }
  answer(call, NBD_REP_ACK, NOTHING)
  return { kind: 'starttls' }
}

function structuredReply(call: Call): undefined {
  if (call.negotiated.replyStyle === 'extended') {
    return refuse(call, NBD_REP_ERR_EXT_HEADER_REQD, 'extended headers are in use, and take precedence')
  }
  call.negotiated.replyStyle = 'structured'
  return answer(call, NBD_REP_ACK, NOTHING)
}

function extendedHeaders(call: Call): undefined {
  call.negotiated.replyStyle = 'extended'
  return answer(call, NBD_REP_ACK, NOTHING)
}

/** Transmission flags as they hold for this client on this export; `hasContext`: there is something to filter. */
function transmissionFlags(found: HandshakeExport, { replyStyle }: Negotiated, hasContext: boolean): number {
  const fragments = replyStyle === 'simple' ? 0 : NBD_FLAG_SEND_DF
  const filters = replyStyle === 'extended' && hasContext ? NBD_FLAG_BLOCK_STATUS_PAYLOAD : 0
  return found.transmissionFlags | fragments | filters
}

function transmission(call: Call, name: string, found: HandshakeExport, knowsBlockSizes: boolean): HandshakeOutcome {
  const contexts = call.negotiated.contextsFor(name)
  return {
    kind: 'transmission',
    exportName: found.name,
    replyStyle: call.negotiated.replyStyle,
    transmissionFlags: transmissionFlags(found, call.negotiated, contexts.length > 0),
    knowsBlockSizes,
    contexts,
  }
}

// NBD_OPT_EXPORT_NAME has no error reply: whatever speaks against it ends the session.
function exportName(call: Call): HandshakeOutcome {
  const { data, host, negotiated } = call
  const name = decodeName(data)
  const mayAsk = (host.tls !== 'require' || negotiated.secure) && !host.shuttingDown
  const found = mayAsk && name !== undefined ? host.find(name) : undefined
  if (name === undefined || found === undefined || negotiated.replyStyle === 'extended') {
    throw new ProtocolError('export-refused', `NBD_OPT_EXPORT_NAME asked for ${exportRefusal(call, name)}`)
  }
  const refusal = host.refusal?.(found, true)
  if (refusal !== undefined) throw new ProtocolError('export-refused', refusal.message)
  const outcome = transmission(call, name, found, false)
  const bytes = new Uint8Array(10 + (negotiated.noZeroes ? 0 : EXPORT_NAME_ZEROES))
  const view = viewOf(bytes)
  setUint64(view, 0, found.size)
  view.setUint16(8, outcome.kind === 'transmission' ? outcome.transmissionFlags : 0)
  negotiated.reply(bytes)
  return outcome
}

function exportRefusal({ host, negotiated }: Call, name: string | undefined): string {
  if (host.tls === 'require' && !negotiated.secure) return 'an export before TLS, which this server requires'
  if (host.shuttingDown) return 'an export while the server shuts down'
  if (negotiated.replyStyle === 'extended') return 'an export under extended headers, which need NBD_OPT_GO'
  return name === undefined ? 'a name that is not UTF-8' : `the unknown export '${name}'`
}

function infoOrGo(call: Call): HandshakeOutcome | undefined {
  const { host, negotiated, option } = call
  const asked = decodeInfoRequest(call.data)
  if (asked === undefined) return refuse(call, NBD_REP_ERR_INVALID, `${optionName(option)}'s data is malformed`)
  const found = host.find(asked.name)
  if (found === undefined) return refuse(call, NBD_REP_ERR_UNKNOWN, `there is no export '${asked.name}'`)
  const refusal = host.refusal?.(found, option === NBD_OPT_GO)
  if (refusal !== undefined) return refuse(call, refusal.error, refusal.message)
  // Whoever only asks may select a context yet, and is told what there would be then.
  const hasContext = option === NBD_OPT_INFO || negotiated.contextsFor(asked.name).length > 0
  const flags = transmissionFlags(found, negotiated, hasContext)
  answer(call, NBD_REP_INFO, encodeInfoExport(found.size, flags))
  const wanted = new Set(asked.requests)
  if (wanted.has(NBD_INFO_NAME)) answer(call, NBD_REP_INFO, encodeInfoText(NBD_INFO_NAME, found.name))
  if (wanted.has(NBD_INFO_DESCRIPTION)) {
    answer(call, NBD_REP_INFO, encodeInfoText(NBD_INFO_DESCRIPTION, found.description))
  }
  if (wanted.has(NBD_INFO_BLOCK_SIZE)) answer(call, NBD_REP_INFO, encodeInfoBlockSize(found.blockSizes))
  answer(call, NBD_REP_ACK, NOTHING)
  return option === NBD_OPT_GO ? transmission(call, asked.name, found, wanted.has(NBD_INFO_BLOCK_SIZE)) : undefined
}

function metaContext(call: Call): undefined {
  const { host, negotiated, option } = call
  const setting = option === NBD_OPT_SET_META_CONTEXT
  // A SET replaces what was selected before, also when it fails.
  if (setting) negotiated.selection = undefined
  if (negotiated.replyStyle === 'simple') {
    return refuse(call, NBD_REP_ERR_INVALID, `${optionName(option)} needs NBD_OPT_STRUCTURED_REPLY first`)
  }
  const asked = decodeMetaContextRequest(call.data)
  if (asked === undefined) return refuse(call, NBD_REP_ERR_INVALID, `${optionName(option)}'s data is malformed`)
  const stray = asked.queries.find((query) => query.indexOf(':') < 1)
  if (stray !== undefined) return refuse(call, NBD_REP_ERR_INVALID, `the query '${stray}' names no namespace`)
  const found = host.find(asked.name)
  if (found === undefined) return refuse(call, NBD_REP_ERR_UNKNOWN, `there is no export '${asked.name}'`)
  const refusal = host.refusal?.(found, false)
  if (refusal !== undefined) return refuse(call, refusal.error, refusal.message)
  const contexts = matchingContexts(found.contexts, asked.queries, setting)
  for (const context of contexts) answer(call, NBD_REP_META_CONTEXT, encodeMetaContext(context))
  if (setting) negotiated.selection = { exportName: asked.name, contexts }
  return answer(call, NBD_REP_ACK, NOTHING)
}
