// An I/O thread: an ExportHost behind a message port. It opens no sockets and parses no words; whoever stalls it stalls
// the exports of its own device, and nothing else.
import { parentPort, workerData } from 'node:worker_threads'
import { OpenError, type OpenedImage } from '../../backends/index.js'
import { Log } from '../observe/log.js'
import { ExportHost } from './export-host.js'
import type { Call, FromThread, IoThreadData, ToThread } from './io-messages.js'

const port = parentPort
if (port === null) throw new TypeError('this file is an I/O thread of the server, not a program')

function tell(message: FromThread): void {
  port?.postMessage(message)
}

const data = workerData as IoThreadData
const reopening = new Map<number, (image: OpenedImage | string) => void>()
let reopened = 0

/** @throws OpenError */
async function reopen({ path, readOnly }: { readonly path: string; readonly readOnly: boolean }): Promise<OpenedImage> {
  const image = await new Promise<OpenedImage | string>((settle) => {
    const id = reopened++
    reopening.set(id, settle)
    tell({ kind: 'reopen', id, path, readOnly })
  })
  if (typeof image === 'string') throw new OpenError(image)
  return image
}

const log = new Log((line) => tell({ kind: 'log', line }), data.pulse)
const host = new ExportHost({
  ...data,
  log,
  reopen,
  reopened: (exportName, fd) => tell({ kind: 'held-anew', exportName, fd }),
  events: {
    connectionFaulted: (connection, fault) => tell({ kind: 'faulted', connection, fault }),
    connectionEnded: (connection) => tell({ kind: 'ended', connection }),
    exportResized: (exportName, size) => tell({ kind: 'resized', exportName, size }),
  },
})

function carryOut(call: Call): Promise<unknown> {
  switch (call.name) {
    case 'open':
      return host.open(call.config, call.image, call.share, call.moved)
    case 'settle':
      return host.settle(call.timeoutMs)
    case 'freeze':
      return host.freeze(call.timeoutMs)
    case 'goOn':
      return host.goOn(call.handedOver)
    case 'abandon':
      return host.abandon()
    case 'ask':
      return host.ask(call.request)
    case 'remove':
      return host.remove(call.exportName, call.how, call.timeoutMs)
    case 'finish':
      return host.finish(call.timeoutMs)
    case 'sync':
      return host.sync()
    case 'close':
      return host.close().finally(() => log.close())
  }
}

async function answer(id: number, call: Call): Promise<void> {
  try {
    tell({ kind: 'answer', id, value: await carryOut(call) })
  } catch (error) {
    if (!(error instanceof OpenError)) throw error
    tell({ kind: 'refusal', id, sentence: error.message })
  }
}

port.on('message', (message: ToThread) => {
  if (message.kind === 'call') void answer(message.id, message.call)
  else if (message.kind === 'attach') host.attach(message.order)
  else if (message.kind === 'disconnect') host.disconnect(message.connection)
  else if (message.kind === 'attach-vhost-user') host.attachVhostUser(message.order)
  else if (message.kind === 'drain') host.drain()
  else {
    reopening.get(message.id)?.(message.image)
    reopening.delete(message.id)
  }
})
