// The socket on which a back-end may say something by itself, as a front-end hands it over with SET_BACKEND_REQ_FD.
import { closeSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { descriptorOf } from '../../server/nbd/adopt-socket.js'
import type { Scope } from './faults.js'
import { scratchFolder } from './guest-images.js'
import { Conversation, socketTo } from './vhost-user-conversation.js'

/** Our end, and the descriptor for the back-end's. */
export async function newChannel(scope: Scope): Promise<{ readonly channel: Conversation; readonly fd: number }> {
  const path = join(scratchFolder(scope), 'channel.sock')
  const server = createServer({ pauseOnConnect: true })
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve))
  await new Promise<void>((resolve) => server.listen(path, resolve))
  const fd = await socketTo(path)
  const channel = new Conversation(descriptorOf(await accepted))
  server.close()
  scope.after(() => {
    channel.close()
    closeSync(fd)
  })
  return { channel, fd }
}
