// The front ends of the main thread as one: where clients and guests come in, and who is connected. Law: a connection's
// number names it in all of them.
import type { TlsContext } from '../backends/index.js'
import type { ConnectionEvents, EndedFault, HostEvents } from './io/io-host.js'
import type { Session } from './nbd/guest.js'
import type { ListenAddress, Listener } from './nbd/listen.js'
import type { NbdServerOptions } from './nbd/nbd-options.js'
import { NbdServer } from './nbd/server.js'
import { Tunnels } from './nbd/tunnel.js'
import { VhostUserServer, type VhostUserServerOptions } from './vhost-user/server.js'

export class FrontEnds implements HostEvents {
  /** Secured clients, whose bytes go through this process to the end. */
  readonly tunnels = new Tunnels()
  readonly nbd: NbdServer
  readonly vhostUser: VhostUserServer

  constructor(options: NbdServerOptions & Pick<VhostUserServerOptions, 'guestLeft'>) {
    this.nbd = new NbdServer({
      ...options,
      tunnels: this.tunnels,
      elsewhere: (exportName) => this.vhostUser.sessionsOf(exportName),
    })
    this.vhostUser = new VhostUserServer({
      ...options,
      nextConnection: () => this.nbd.nextConnection(),
      elsewhere: (exportName) => this.nbd.seatsAt(exportName),
    })
  }

  /** Listens on one more address; returns it with its real port. @throws OpenError */
  listen(address: ListenAddress): Promise<ListenAddress> {
    return address.kind === 'vhost-user' ? this.vhostUser.listen(address) : this.nbd.listen(address)
  }

  /** Goes on listening on a socket of another process. @throws OpenError */
  listenOnMoved(fd: number, wanted: ListenAddress): Promise<ListenAddress> {
    return wanted.kind === 'vhost-user' ? this.vhostUser.listen(wanted, fd) : this.nbd.listeners.goOn(fd, wanted)
  }

  get listeners(): readonly Listener[] {
    return [...this.nbd.listeners.all, ...this.vhostUser.listeners]
  }

  /** Another process accepts from here on; handshakes go on. */
  leave(): void {
    this.nbd.leave()
    for (const listener of this.vhostUser.listeners) listener.leave()
  }

  /** Who is connected; `inFlight` by the connection's number. */
  sessions(inFlight: ReadonlyMap<number, number>): Session[] {
    return [...this.nbd.sessions(inFlight), ...this.vhostUser.sessions(inFlight)].sort(
      (one, other) => one.id - other.id,
    )
  }

  /** Connections to an export. */
  sessionsOf(exportName: string): number {
    return this.nbd.sessionsOf(exportName) + this.vhostUser.sessionsOf(exportName)
  }

  /** Clients that come from now on are secured by this. */
  secureBy(tls: TlsContext | undefined): void {
    this.nbd.secureBy(tls)
  }

  /** Ends a connection; false when there is none of this number. */
  disconnect(connection: number): boolean {
    return this.nbd.disconnect(connection) || this.vhostUser.disconnect(connection)
  }

  #of(connection: number): ConnectionEvents {
    return this.vhostUser.has(connection) ? this.vhostUser : this.nbd
  }

  connectionFaulted(connection: number, fault: EndedFault): void {
    this.#of(connection).connectionFaulted(connection, fault)
  }

  connectionEnded(connection: number): void {
    this.#of(connection).connectionEnded(connection)
  }

  exportResized(exportName: string, size: number): void {
    this.nbd.exportResized(exportName, size)
  }

  /** Stops accepting. */
  drain(): void {
    this.nbd.drain()
    this.vhostUser.drain()
  }

  /** Ends every handshake; settles when secured clients have taken their last replies, or it is too late. */
  async finish(deadline = 0): Promise<void> {
    this.nbd.finish()
    await this.tunnels.closed(deadline)
  }
}
