// Which test proves which sentence of docs/errors.md. Law: a sentence is found by a few of its words; a test by its
// file and by its title, or the part of it that stands in the source.

import { STEP_BY_STEP } from './release-proofs.js'

/** Words of a sentence, then the tests: 'folder/file: title'. */
export type Proof = readonly [words: string, ...tests: readonly string[]]

const LAWS =
  "server/laws: every errno of the host reaches the client as the table says, and the metrics as the host's own"
const SPACE_HOLD = 'server/space-hold: waits while reads and overwrites go on, and succeeds when there is space'
const HOLD =
  'faults/hold: writes beyond a full file system wait, reads and overwrites go on, and all succeed when it is enlarged'
const FIRST_FLUSH =
  'faults/failing-sync: the first FLUSH that storage fails fails, and so does every later one, and FUA on every command, on old and new connections'
const EACH_MIB =
  'faults/failing-sync: after a failed sync and without the page cache each MiB reads as EIO or as it was written, and metrics count the suspect ones'
const REMEMBERED =
  'faults/failing-sync-restart: a failed sync is remembered over a restart; resume, a rewrite and a FLUSH make all well, and that is remembered too'
const RESUME =
  'server/durability: resume that succeeds in syncing ends the degraded state; suspect ranges stay until they are rewritten'
const TRUNCATED =
  'faults/under-our-feet: after a truncation no FLUSH and no FUA succeeds on any connection, and the state says degraded, once'
const DETACHED = 'FLUSH and then FUA fail, the state is detached, and the log says so once'
const KILLED =
  'faults/kill: what a killed server had not synced, and write-back then lost, is suspect for the next one, MiB by MiB'
const INJECTED = 'server/inject: fails what the rules name, counts it, says so aloud, and takes rules at run time'
const FUSE =
  'faults/hung-storage-fuse: requests to a file system whose server is stopped are seen, harm nobody else, and are answered once when it goes on'
const FUSE_STOP =
  'faults/hung-storage-fuse: a candor whose storage hangs gives up at a second signal, and is gone when the kernel lets go of its requests'
const MODEL = 'fuzz/faults-model: the four laws hold for every reply, whatever fails wherever, over'

const ERRORS: readonly Proof[] = [
  [
    '* **failed**: the export is wanted',
    'server/reload: an export whose image is gone is listed as failed, everywhere, until it is back; others go on',
  ],
  [
    'Nobody can attach to it;',
    'server/reload: an export whose image is gone is listed as failed, everywhere, until it is back; others go on',
  ],
  ['Mend that, then `candor ctl reload`', 'server/reload: a failed export is given up by remove'],
  ["carry the host's own errno", LAWS, MODEL],
  [
    'A guest on Linux',
    'guest/full-host: a guest that fills a full host is told, the ledger knows what it was told, and what was synced survives',
    'guest/full-host-space: QEMU pauses a guest with a virtio disk for want of space, and after cont its data are right',
  ],
  ['with `reserve` in log and ledger', 'faults/reserve: new space ends at the reserve, and overwrites, TRIM'],
  ['| ENOSPC | ENOSPC |', 'faults/full-disk: hears of every write that failed, until space is freed'],
  ['| EDQUOT | ENOSPC |', 'faults/errno: a write past the quota is ENOSPC to the client and EDQUOT in the metrics'],
  [
    '| EFBIG | ENOSPC |',
    'faults/errno: a write past the limit on file sizes is ENOSPC to the client and EFBIG in the metrics, also when a part landed',
  ],
  [
    '| EIO | EIO |',
    'faults/errno: a file system that shut itself down is EIO for everything, and each command says so once in the log',
    'faults/under-our-feet: reads of what a truncation took away are errors, never zeroes, and what is left is read',
  ],
  [
    '| EROFS | EIO |',
    'faults/errno: a file system that became read-only is EIO to the client and EROFS in the metrics, and what can be read is read',
  ],
  ['| any other | EIO |', LAWS],
  [
    'from candor itself',
    'conformance/command-flags: past the end a write is ENOSPC, everything else EINVAL',
    'access/read-only: refuses whatever writes to that export with EPERM, and nothing else',
    'faults/hold: SIGTERM ends what is held with ESHUTDOWN, and the server leaves clean',
  ],
  [
    'A structured reply carries',
    'docs/errors: what a failed sync made suspect is told in words, with the first byte, and read by those who accept it',
    'server/durability: what was written since the last good one reads as EIO, and the reply names the first such byte',
  ],
]

const RESERVE = 'faults/reserve: new space ends at the reserve, and overwrites, TRIM and punching go on'

const FULL_HOST: readonly Proof[] = [
  ['`--on-enospc report` (the default)', 'faults/full-disk: hears of every write that failed, until space is freed'],
  [
    'keeps the request and tries again',
    SPACE_HOLD,
    'server/space-hold: is answered with ENOSPC when its time is over',
    'server/space-hold: is answered with ESHUTDOWN when the server leaves',
  ],
  [
    'tells how many wait',
    'docs/errors: an operator sees what is held and since when, and has it tried again or failed',
  ],
  ['Reads, overwrites and other exports', HOLD, SPACE_HOLD],
  ['as soon as the file system tells', 'server/room: wakes all who are held, reserve or not', SPACE_HOLD],
  ['keeps so much of the file system free', RESERVE, 'faults/space-watch: what the reserve holds succeeds when'],
  ['Overwrites, TRIM and', RESERVE],
  ['Space that `fallocate` reserved', 'faults/reserve: an image whose space was reserved by fallocate never refuses'],
  ['What is shared with another file', 'faults/reserve: overwriting what a copy shares takes space; when the copy'],
  ['Refusals are counted in', RESERVE],
  ['Where nobody can say what is free', 'faults/reserve: where nobody can say what is free, a reserve has no effect'],
  ["All exports' writes count at once", 'faults/reserve: many writes in flight on two exports are not admitted on'],
  ['are what `df` and `stat` say', 'faults/space-watch: the metrics are what df and stat say, and images that could'],
  ['Held writes of a client that has gone', 'faults/silent-peer: writes nothing later'],
  ['It has gone when the kernel says so', 'faults/silent-peer: gets the replies of its held writes'],
  ['To find that end', 'server/space-hold: lets its client be read on as far as --look-ahead-max'],
]

const MAP = 'faults/map: the map of a full disk shows where data is and where writes failed'
const PLACES: readonly Proof[] = [
  [
    'lists the failed requests with their sectors',
    `${MAP}, and says the same when the server is gone`,
    'server/disk-map: shows the worst of each cell as a letter, with and without colour, and the ranges in words',
  ],
  ['It shows the worst of what lies in a cell', MAP],
  ['Both work on a running server and without one', MAP],
  [
    'shows the latest 4,096 runs of failures',
    'server/ledger: keeps no more than the latest 4,096 runs in memory',
    'faults/map: a failure stays on the map when the place has been written again',
  ],
]

const STATES: readonly Proof[] = [
  ['is 1 for the state an export is in', FIRST_FLUSH],
  ['* **ok**', RESUME],
  [
    '* **degraded**',
    FIRST_FLUSH,
    "faults/failing-sync-write-back: when the kernel's own write-back fails, the export degrades before any FLUSH",
    TRUNCATED,
  ],
  [
    'and the kernel forgets that it ever said so',
    EACH_MIB,
    'faults/failing-sync-peers: does not take a failed FLUSH back',
  ],
  ['therefore fail on every connection', FIRST_FLUSH, REMEMBERED, MODEL],
  [
    'What may be lost is *suspect*',
    EACH_MIB,
    'server/durability: a write clears exactly its own bytes',
    'server/durability: BLOCK_STATUS tells suspect bytes as data, and they are never sent as holes',
    MODEL,
  ],
  ['Mend the storage, then', RESUME, REMEMBERED],
  ['After restoring the image', REMEMBERED],
  [
    '`--suspect-reads allow` is for those',
    'docs/errors: what a failed sync made suspect is told in words, with the first byte, and read by those who accept it',
  ],
  ['* **detached**', `faults/under-our-feet: ${DETACHED}`],
  ['What is written now is gone', `faults/under-our-feet: ${DETACHED}`],
]

const HUNG: readonly Proof[] = [
  ['A request that storage keeps', FUSE],
  ['The guest waits, as it would', FUSE],
  ['Look for a frozen', FUSE, 'faults/hung-storage: while one file system is frozen, its requests show their age'],
  ['When storage answers again', FUSE],
  [
    'Exports on other devices',
    FUSE,
    'faults/hung-storage: stalls nobody on another device, nor ctl, metrics and the log',
  ],
  [
    'Told to stop, candor waits',
    FUSE_STOP,
    'hostile/storage-limits: --shutdown-timeout, a stop waits no longer for storage',
  ],
  ['The kernel may keep the process', FUSE_STOP],
]

const RESTART: readonly Proof[] = [
  [
    'keeps one file for each image',
    'docs/errors: an image that was renamed is known again, and one whose record cannot be made is not served',
    'server/image-record: is dirty until it is closed clean, and its shadow tells what was not synced',
  ],
  ['the next start syncs', KILLED],
  [
    '`candor_export_unclean_end` is 1',
    KILLED,
    'docs/errors: after an unclean end the log says whether the host went down as well',
  ],
  [
    'A damaged file is set aside',
    'faults/failing-sync-record: a damaged record is set aside with a warning, and the image is taken for one that was not closed',
  ],
  [
    'If a record cannot be made',
    'docs/errors: an image that was renamed is known again, and one whose record cannot be made is not served',
    'faults/failing-sync-record: when the record cannot be stored any more, every command of the export is answered with EIO, and the others go on',
  ],
]

const LIMITS_OF_ALL: readonly Proof[] = [
  [
    'A host that loses power',
    'faults/power-cut: the cut is one: a server that ignores FLUSH (qemu-nbd --cache=unsafe) has lost what it acknowledged',
  ],
  [
    'Some file systems do not report',
    'faults/space: an image on overlayfs is served, with a warning in the log',
    'faults/power-cut: the cut is one: candor, with a kernel that calls fdatasync done without doing it, has lost what it acknowledged',
  ],
]

const RULES = 'docs/errors: every rule of the page does what its row says'
const ON_PURPOSE: readonly Proof[] = [
  ['on a running server, fails requests', INJECTED],
  ['| `write:ENOSPC@1G-2G` |', RULES],
  ['| `read:EIO,rate=0.01` |', 'server/inject: hits about as often as its rate says'],
  ['| `flush:EIO,count=1` |', RULES],
  ['| `write:delay=2s` |', RULES],
  ['| `write:EIO,short=512` |', RULES],
  ['Commands are read, write', RULES],
  ['While rules are in force', INJECTED],
  ['off` ends it', INJECTED],
]

export const PROOFS: readonly Proof[] = [
  ...ERRORS,
  ...FULL_HOST,
  ...PLACES,
  ...STATES,
  ...HUNG,
  ...RESTART,
  ...LIMITS_OF_ALL,
  ...ON_PURPOSE,
  ...STEP_BY_STEP,
]
