// A Unix socket that was handed over by its descriptor: whether it listens, or is connected already.
import { isListening, OpenError } from '../../backends/index.js'

/** True for a socket that listens, false for one that is connected. @throws OpenError for anything else */
export function listens(fd: number): boolean {
  const answer = isListening(fd)
  if (answer >= 0) return answer === 1
  const wanted = 'no Unix stream socket that listens or is connected'
  throw new OpenError(`descriptor ${fd} is ${wanted}: give --socket-path PATH, or another --fd`)
}
