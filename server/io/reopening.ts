// An image that an operator's word has opened again. Law: whoever keeps its description learns of the new one before the
// operator has his answer.
import type { OpenedExport } from '../exports/open-export.js'

/** `tell` hears of an image that can be written and is held by another descriptor after `act` than before. */
export async function tellingOfReopening<Reply>(
  opened: OpenedExport | undefined,
  act: () => Promise<Reply>,
  tell?: (exportName: string, fd: number) => void,
): Promise<Reply> {
  const before = opened?.descriptor()
  const reply = await act()
  const fd = opened?.descriptor() ?? -1
  if (opened !== undefined && !opened.entry.readOnly && fd >= 0 && fd !== before) tell?.(opened.entry.name, fd)
  return reply
}
