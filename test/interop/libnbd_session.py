# What the scripts that drive libnbd share: connections, and outcomes as words. Each script prints one JSON value.
import json
import sys

import nbd

MIB = 1 << 20


def connect(uri, contexts=(), prepare=None):
    """A connection that sends whatever it is told to: libnbd checks nothing."""
    handle = nbd.NBD()
    handle.set_strict_mode(0)
    for context in contexts:
        handle.add_meta_context(context)
    if prepare is not None:
        prepare(handle)
    handle.connect_uri(uri)
    return handle


def outcome(command):
    """'ok', or the name of the errno that the server answered with; 'lost' where there was no answer."""
    try:
        command()
        return "ok"
    except nbd.Error as error:
        return error.errno or "lost"


def alive(handle):
    """Whether the connection still serves."""
    return handle.aio_is_ready() and outcome(lambda: handle.pread(512, 0)) == "ok"


def pattern(length, seed):
    """Bytes that differ with the seed and from place to place."""
    block = bytes((index * 7 + seed * 13 + (index >> 8) * 31) & 0xFF for index in range(65536 + seed % 251))
    return (block * (length // len(block) + 1))[:length]


def report(value):
    json.dump(value, sys.stdout)
