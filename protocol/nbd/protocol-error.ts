// The fate of a stream that cannot be kept: the peer broke the wire, and what follows cannot be understood.

/** Stable codes for programs (metrics, tests); the message is for people. */
export type ProtocolErrorCode =
  | 'bad-magic'
  | 'bad-client-flags'
  | 'bad-greeting'
  | 'bad-option-magic'
  | 'option-too-long'
  | 'too-many-options'
  | 'export-refused'
  | 'bytes-behind-starttls'
  | 'tls-failed'
  | 'bad-request-magic'
  | 'payload-too-long'
  | 'bad-reply'

/** Thrown by decoders when the stream is lost; caught once per connection, which then ends. */
export class ProtocolError extends Error {
  readonly code: ProtocolErrorCode

  constructor(code: ProtocolErrorCode, message: string) {
    super(message)
    this.name = 'ProtocolError'
    this.code = code
  }
}
