// A client has gone: what waits for something else than storage goes with it.
import type { Export } from './export.js'

/** Ends the waits of requests that nobody wants any more: each asks so itself. */
export function dropUnwanted({ space, recess, order, gate }: Export): void {
  for (const place of [space, recess, order, gate]) place.dropUnwanted()
}
