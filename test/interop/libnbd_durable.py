# Commands with and without FUA, one at a time, each at an offset of its own. Argument: URI.
import sys

import nbd
from libnbd_session import MIB, connect, report

FUA, NO_HOLE = nbd.CMD_FLAG_FUA, nbd.CMD_FLAG_NO_HOLE
handle = connect(sys.argv[1])
handle.pwrite(bytes(4096), 1 * MIB)
handle.pwrite(bytes(4096), 2 * MIB, FUA)
handle.trim(4096, 3 * MIB)
handle.trim(4096, 4 * MIB, FUA)
handle.zero(4096, 5 * MIB)
handle.zero(4096, 6 * MIB, FUA)
handle.zero(4096, 7 * MIB, NO_HOLE)
handle.zero(4096, 8 * MIB, NO_HOLE | FUA)
handle.pwrite(bytes(4096), 9 * MIB)
handle.flush()
handle.pwrite(bytes(4096), 10 * MIB)
report({"done": True})
