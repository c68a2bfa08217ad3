# Extended headers as libnbd 1.22 speaks them: lengths past 4 GiB in one request. Argument: URI.
import json
import sys

import nbd

GIB = 1 << 30
handle = nbd.NBD()
handle.add_meta_context("base:allocation")
handle.connect_uri(sys.argv[1])
seen = {"extended": handle.get_extended_headers_negotiated(), "protocol": handle.get_version()}


def runs(length, offset):
    found = []

    def extent(_context, _offset, entries, _error):
        found.extend([list(entry) for entry in entries])
        return 0

    handle.block_status_64(length, offset, extent)
    return found


handle.pwrite(b"x" * 4096, 0)
handle.pwrite(b"y" * 4096, 11 * GIB)
handle.flush()
seen["before"] = runs(12 * GIB, 0)
handle.zero(6 * GIB, 0)
handle.trim(6 * GIB, 6 * GIB)
handle.cache(8 * GIB, 0)
seen["after"] = runs(12 * GIB, 0)
seen["zeroes"] = handle.pread(4096, 0) == bytes(4096) and handle.pread(4096, 11 * GIB) == bytes(4096)
handle.pwrite(b"z" * 4096, 5 * GIB, nbd.CMD_FLAG_FUA)
seen["data"] = handle.pread(4096, 5 * GIB) == b"z" * 4096
handle.shutdown()
print(json.dumps(seen))
