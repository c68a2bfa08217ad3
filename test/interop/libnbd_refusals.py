# Requests that have to be refused, each followed by one that has to be served. Arguments: URIs of a writable and of a
# read-only export of 64 MiB.
import sys

import nbd
from libnbd_session import MIB, alive, connect, outcome, report

SIZE = 64 * MIB
handle = connect(sys.argv[1], ["base:allocation"])
reader = connect(sys.argv[2])


def status(length, offset, flags=0):
    return lambda: handle.block_status(length, offset, lambda *_: 0, flags)


REFUSALS = {
    "read past the end": (handle, lambda: handle.pread(1024, SIZE - 512)),
    "read behind the end": (handle, lambda: handle.pread(512, 2**62)),
    "write past the end": (handle, lambda: handle.pwrite(bytes(1024), SIZE - 512)),
    "write behind the end": (handle, lambda: handle.pwrite(bytes(512), 2**62)),
    "trim past the end": (handle, lambda: handle.trim(1024, SIZE - 512)),
    "zero past the end": (handle, lambda: handle.zero(1024, SIZE - 512)),
    "cache past the end": (handle, lambda: handle.cache(1024, SIZE - 512)),
    "status past the end": (handle, status(1024, SIZE - 512)),
    "status of nothing": (handle, status(0, 0)),
    "read with an unknown flag": (handle, lambda: handle.pread(512, 0, 1 << 9)),
    "write with an unknown flag": (handle, lambda: handle.pwrite(bytes(512), 0, 1 << 9)),
    "trim with an unknown flag": (handle, lambda: handle.trim(512, 0, 1 << 9)),
    "zero with an unknown flag": (handle, lambda: handle.zero(512, 0, 1 << 9)),
    "flush with an unknown flag": (handle, lambda: handle.flush(1 << 9)),
    "cache with an unknown flag": (handle, lambda: handle.cache(512, 0, 1 << 9)),
    "status with an unknown flag": (handle, status(512, 0, 1 << 9)),
    "read with NO_HOLE": (handle, lambda: handle.pread(512, 0, nbd.CMD_FLAG_NO_HOLE)),
    "trim with FAST_ZERO": (handle, lambda: handle.trim(512, 0, nbd.CMD_FLAG_FAST_ZERO)),
    "write with DF": (handle, lambda: handle.pwrite(bytes(512), 0, nbd.CMD_FLAG_DF)),
    "read of 32 MiB + 1": (handle, lambda: handle.pread(32 * MIB + 1, 0)),
    "write of 32 MiB + 1": (handle, lambda: handle.pwrite(bytes(32 * MIB + 1), 0)),
    "write of 64 MiB": (handle, lambda: handle.pwrite(bytes(64 * MIB), 0)),
    "write when read-only": (reader, lambda: reader.pwrite(bytes(512), 0)),
    "write with FUA when read-only": (reader, lambda: reader.pwrite(bytes(512), 0, nbd.CMD_FLAG_FUA)),
    "trim when read-only": (reader, lambda: reader.trim(512, 0)),
    "zero when read-only": (reader, lambda: reader.zero(512, 0)),
    "zero with FAST_ZERO when read-only": (reader, lambda: reader.zero(512, 0, nbd.CMD_FLAG_FAST_ZERO)),
    "status where none was negotiated": (reader, lambda: reader.block_status(512, 0, lambda *_: 0)),
}

report({title: [outcome(command), alive(connection)] for title, (connection, command) in REFUSALS.items()})
