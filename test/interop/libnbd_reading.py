# Reads by chunks with and without DF, and block status with and without REQ_ONE. Argument: URI.
import sys

import nbd
from libnbd_session import MIB, alive, connect, report

NAMES = {nbd.READ_DATA: "data", nbd.READ_HOLE: "hole", nbd.READ_ERROR: "error"}
handle = connect(sys.argv[1], ["base:allocation", "qemu:allocation-depth"])


def chunks(length, offset, flags):
    """The kinds and places of the chunks, in order of place, and whether they bring what a plain read brings."""
    seen = []
    content = bytearray(length)

    def arrived(data, at, status, error):
        seen.append([NAMES[status], at, len(data)])
        content[at - offset : at - offset + len(data)] = data
        return 0

    handle.pread_structured(length, offset, arrived, flags)
    same = bytes(content) == bytes(handle.pread(length, offset))
    return {"chunks": sorted(seen, key=lambda chunk: chunk[1]), "same": same}


def runs(length, offset, flags):
    found = {}
    handle.block_status(length, offset, lambda context, at, entries, error: found.update({context: entries}) or 0, flags)
    return {context: list(zip(entries[::2], entries[1::2])) for context, entries in found.items()}


report(
    {
        "chunks": chunks(4 * MIB, 0, 0),
        "chunks DF": chunks(4 * MIB, 0, nbd.CMD_FLAG_DF),
        "largest chunk DF": chunks(32 * MIB, 0, nbd.CMD_FLAG_DF),
        "runs": runs(4 * MIB, 0, 0),
        "runs within": runs(MIB, MIB // 2, 0),
        "runs REQ_ONE": runs(4 * MIB, 0, nbd.CMD_FLAG_REQ_ONE),
        "runs REQ_ONE in a hole": runs(512, MIB + 512, nbd.CMD_FLAG_REQ_ONE),
        "alive": alive(handle),
    }
)
