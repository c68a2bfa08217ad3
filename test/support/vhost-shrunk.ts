// Memory that is cut off under a thread, or left mapped by one; and a bus error from elsewhere.
import { ftruncateSync } from 'node:fs'
import { isMainThread, parentPort, workerData } from 'node:worker_threads'
import { GuestMemory, shrinkableFile } from './vhost-guest.js'

const MIB = 1 << 20

if (isMainThread) {
  new GuestMemory(MIB)
  process.kill(process.pid, 'SIGBUS')
} else if ((workerData as { leave: boolean }).leave) {
  // Kept, so that it is not collected before its thread ends.
  const kept = new GuestMemory(MIB)
  setInterval(() => kept.memory.lost, 1000)
  parentPort?.postMessage('mapped')
} else {
  const fd = shrinkableFile(MIB)
  const guest = new GuestMemory(MIB, 0, fd)
  guest.write(0, Buffer.alloc(MIB, 7))
  const window = guest.memory.window(0) ?? new Uint8Array()
  ftruncateSync(fd, 0)
  parentPort?.postMessage({ seen: window[12345], lost: guest.memory.lost })
  guest.close()
}
