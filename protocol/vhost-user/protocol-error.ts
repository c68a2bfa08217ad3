// The fate of a session that cannot be kept: the front-end broke the protocol, and nobody knows what it believes.

/** Stable codes for programs (metrics, tests); the message is for people. */
export type ProtocolErrorCode =
  | 'bad-header'
  | 'payload-too-long'
  | 'bad-payload'
  | 'bad-descriptors'
  | 'bad-features'
  | 'unknown-request'
  | 'out-of-turn'
  | 'bad-ring'
  | 'too-much-waiting'
  | 'refused'

/** Thrown when the session is lost; caught once per connection, which then ends. */
export class ProtocolError extends Error {
  readonly code: ProtocolErrorCode

  constructor(code: ProtocolErrorCode, message: string) {
    super(message)
    this.name = 'ProtocolError'
    this.code = code
  }
}
