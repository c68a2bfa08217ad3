# Every command with every flag that a client may set on it. Arguments: URI, and the image on the host, which is looked
# at for what each command frees.
import os
import sys

import nbd
from libnbd_session import MIB, alive, connect, outcome, report

uri, image = sys.argv[1:]
handle = connect(uri, ["base:allocation"])
FUA, NO_HOLE, FAST = nbd.CMD_FLAG_FUA, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO

COMMANDS = {
    "write": lambda: handle.pwrite(b"\x5a" * 8192, 0),
    "write FUA": lambda: handle.pwrite(b"\x5b" * 8192, 8192, FUA),
    "trim": lambda: handle.trim(MIB, 1 * MIB),
    "trim FUA": lambda: handle.trim(MIB, 3 * MIB, FUA),
    "zero": lambda: handle.zero(MIB, 5 * MIB),
    "zero FUA": lambda: handle.zero(MIB, 7 * MIB, FUA),
    "zero NO_HOLE": lambda: handle.zero(MIB, 9 * MIB, NO_HOLE),
    "zero NO_HOLE FUA": lambda: handle.zero(MIB, 11 * MIB, NO_HOLE | FUA),
    "zero FAST_ZERO": lambda: handle.zero(MIB, 13 * MIB, FAST),
    "zero FAST_ZERO NO_HOLE": lambda: handle.zero(MIB, 15 * MIB, FAST | NO_HOLE),
    "zero FAST_ZERO NO_HOLE FUA": lambda: handle.zero(MIB, 17 * MIB, FAST | NO_HOLE | FUA),
    "zero a hole with NO_HOLE": lambda: handle.zero(MIB, 1 * MIB, NO_HOLE),
    "write nothing": lambda: handle.pwrite(b"", 4096),
    "cache": lambda: handle.cache(MIB, 20 * MIB),
    "cache a hole": lambda: handle.cache(MIB, 1 * MIB),
    "flush": lambda: handle.flush(),
}


def perform(command):
    before = os.stat(image).st_blocks
    result = outcome(command)
    return {"outcome": result, "freed": (before - os.stat(image).st_blocks) * 512}


report({"commands": {title: perform(command) for title, command in COMMANDS.items()}, "alive": alive(handle)})
