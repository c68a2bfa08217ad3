// A thread that reads from storage which does not answer, and says so when the read was given away.
import { openSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { IO_READ } from '../../backends/native/file-io.js'
import { IoPool } from '../../backends/native/io-pool.js'

const fd = openSync(workerData as string, 'r')
const pool = new IoPool(1, 'pool')
parentPort?.once('message', () => {
  void pool.run(IO_READ, 0, fd, new Uint8Array(4096), 0, 4096, 0)
  // The read goes at the end of this turn.
  setImmediate(() => setImmediate(() => parentPort?.postMessage('reading')))
})
parentPort?.postMessage('open')
