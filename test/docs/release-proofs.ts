// Which test proves which sentence of "Degraded, step by step" in docs/errors.md; the same rules as errors-proofs.ts.
import type { Proof } from './errors-proofs.js'

const WAY_BACK = 'faults/failing-sync-stacks: is never taken back, until the operator and the client have mended it'
const ANEW =
  'faults/release: a sound image is let go of, its file system unmounted and mounted, and taken up again with nothing lost'
const OTHERS =
  'faults/release: another file in the place of the image is refused, and so is a read-only file system; the image itself is taken up'
const BACK =
  'faults/release: an image that another file replaced stays detached, whatever the operator says, until it is back'
const LOCKED =
  'faults/release: while it is let go of another may have the image; resume takes the lock again, or says who has it'
const STOPPED =
  'faults/release: what waits is answered with ESHUTDOWN when the server ends, and dropped when its client goes'
const KEPT =
  'faults/release: a request that the kernel keeps is waited for in vain, so the image is not let go of; later it can be'
const MOVED =
  'faults/another-mount: resume alone finds the image on another mount, as of a disk that came back under another name'
const LOST =
  'faults/another-mount: releasing an image whose sync fails makes all that was not synced suspect, and says so'

export const STEP_BY_STEP: readonly Proof[] = [
  ['Put the image (not a copy of it) back', BACK],
  ['1.', WAY_BACK],
  ['names the state and how much is suspect', WAY_BACK],
  ['Guests stay attached through all', WAY_BACK],
  ['Mend the storage: enlarge the thin pool', WAY_BACK, MOVED],
  ['Look at the file system that the image lies on', WAY_BACK],
  ['Where it went on (XFS', WAY_BACK],
  ['An ext4 that aborted its journal', WAY_BACK],
  ['So candor lets go of the image', WAY_BACK],
  ['candor ctl release NAME # syncs', WAY_BACK, LOST],
  ['says what is still suspect', WAY_BACK],
  ['let the guest check and repair', WAY_BACK],
  ['opens nothing but the image that was served', OTHERS, MOVED],
  ['While it is released the image is not locked', LOCKED],
  ['`candor_export_released` is 1 then', ANEW, STOPPED],
  ['If the kernel keeps a request', KEPT],
  ['A sound image can be released too', ANEW],
  ['alone is enough where the disk came back', MOVED],
  ['tells of an error from before', WAY_BACK],
]
