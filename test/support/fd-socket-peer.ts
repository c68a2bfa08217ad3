// The other end of an FdSocket: a thread that sends everything back, or a process with room for few descriptors that
// tells how its stream ended and how many descriptors it was left with.
import { closeSync, readdirSync } from 'node:fs'
import { isMainThread, parentPort, workerData } from 'node:worker_threads'
import { FdSocket } from '../../backends/native/fd-socket.js'

function echo(fd: number): void {
  const socket = new FdSocket(fd, {
    arrived: (data, fds) => {
      socket.send(data, fds)
      for (const each of fds) closeSync(each)
    },
    ended: () => socket.close(),
  })
  parentPort?.postMessage('there')
}

function tellTheEnd(fd: number): void {
  process.stdout.write('there\n')
  const before = readdirSync('/proc/self/fd').length
  const socket = new FdSocket(fd, {
    arrived: () => {},
    ended: (errno) => {
      const more = readdirSync('/proc/self/fd').length - before
      process.stdout.write(`${JSON.stringify({ errno, more })}\n`)
      socket.close()
    },
  })
}

if (isMainThread) tellTheEnd(Number(process.argv[2]))
else echo(workerData as number)
