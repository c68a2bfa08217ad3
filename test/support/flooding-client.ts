// A client in a thread of its own, which says all it has to say as fast as the server reads it, while the server is busy too.
import assert from 'node:assert/strict'
import { parentPort, workerData } from 'node:worker_threads'
import { noReadData, pattern } from './large-writes.js'
import { writeRequest } from './raw-bytes.js'
import { RawClient } from './raw-client.js'

const { path, length } = workerData as { readonly path: string; readonly length: number }
const client = await RawClient.enter(path, 'simple')
await client.send(writeRequest('simple', 1n, 0, pattern(length, 3)))
assert.equal((await client.reply(noReadData))?.error, 0)
client.vanish()
parentPort?.postMessage('done')
