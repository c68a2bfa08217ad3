// What waits until the image is held again. Law: it opens once.

export interface Gate {
  readonly opened: Promise<void>
  readonly open: () => void
}

export function newGate(): Gate {
  let open = () => {}
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  return { opened, open }
}
