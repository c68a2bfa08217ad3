// One line of the operator's socket to a request. Law: what goes on from here has the types that it says it has; whatever
// else was said is refused in a sentence.
import { UsageError } from '../values.js'
import type { ControlRequest } from './export-actions.js'

type Fields = Readonly<Record<string, unknown>>

const isWord = (value: unknown): value is string => typeof value === 'string' && !value.includes('\0')
const isWords = (value: unknown): value is string[] => Array.isArray(value) && value.every(isWord)

function isTable(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Flags as a command line has them: there or not, a word, or several. */
function isFlags(value: unknown): value is Fields {
  return (
    isTable(value) && Object.values(value).every((each) => typeof each === 'boolean' || isWord(each) || isWords(each))
  )
}

function fieldOf<Value>(
  fields: Fields,
  key: string,
  is: (value: unknown) => value is Value,
  what: string,
): Value | undefined {
  const value = fields[key]
  if (value === undefined || is(value)) return value
  throw new UsageError(`that is no question: '${key}' has to be ${what}`)
}

function fieldsOf(line: string): Fields {
  try {
    const value: unknown = JSON.parse(line)
    if (isTable(value)) return value
  } catch {
    // Said below.
  }
  throw new UsageError('that is no question: write one line of JSON, {"command":"exports"}')
}

/** @throws UsageError */
export function parseControlRequest(line: string): ControlRequest {
  const fields = fieldsOf(line)
  const command = fieldOf(fields, 'command', isWord, 'a word')
  if (command === undefined) throw new UsageError("that is no question: it has no 'command'")
  const name = fieldOf(fields, 'name', isWord, 'a word')
  const words = fieldOf(fields, 'words', isWords, 'a list of words')
  const flags = fieldOf(fields, 'flags', isFlags, 'a table of flags, each with true, a word or a list of words')
  return { command, ...(name !== undefined && { name }), ...(words && { words }), ...(flags && { flags }) }
}
