// What stands behind the question mark, checked. Law: a value that is none is refused in a sentence that names its parameter.

/** The client's mistake: answered with `status` and the sentence. */
export class RequestFault extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

export type Query = Readonly<Record<string, unknown>>

/** A word, or undefined where it is not given. @throws RequestFault when it is given twice or is too long */
export function word(query: Query, name: string, lengthMax: number): string | undefined {
  const value = query[name]
  if (value === undefined) return undefined
  if (typeof value !== 'string') throw new RequestFault(400, `${name} is given more than once`)
  if (value.length <= lengthMax) return value
  throw new RequestFault(400, `${name} has more than ${lengthMax} characters`)
}

/** A whole number from `min` to `max`. @throws RequestFault */
export function whole(query: Query, name: string, byDefault: number, min: number, max: number): number {
  const value = word(query, name, 20)
  if (value === undefined || value === '') return byDefault
  const number = /^\d+$/.test(value) ? Number(value) : Number.NaN
  if (number >= min && number <= max) return number
  throw new RequestFault(400, `${name} is '${value}': write a whole number from ${min} to ${max}`)
}
