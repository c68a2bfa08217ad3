# The ways into transmission that other clients do not take. Arguments: URIs of the exports 'first' (1 MiB) and 'second'
# (2 MiB), and of one that does not exist.
import sys

import nbd
from libnbd_session import alive, connect, outcome, report

first, second, unknown = sys.argv[1:]


def facts(handle):
    data = bytes(range(256)) * 16
    handle.pwrite(data, 4096)
    handle.zero(512, 8192)
    handle.trim(512, 12288)
    handle.flush()
    return {
        "protocol": handle.get_protocol(),
        "structured": handle.get_structured_replies_negotiated(),
        "df": handle.can_df(),
        "size": handle.get_size(),
        "same": bytes(handle.pread(len(data), 4096)) == data,
        "past": outcome(lambda: handle.pread(512, handle.get_size())),
        "status": outcome(lambda: handle.block_status(512, 0, lambda *_: 0)),
        "alive": alive(handle),
    }


def with_flags(flags):
    return lambda handle: handle.set_handshake_flags(flags)


def simple():
    return facts(connect(first, prepare=lambda handle: handle.set_request_structured_replies(False)))


def options():
    """One conversation: list, info, an unknown export, the contexts, and off to the other export."""
    handle = connect(first, prepare=lambda handle: handle.set_opt_mode(True))
    listed = []
    handle.opt_list(lambda name, description: listed.append(name) or 0)
    handle.set_export_name("second")
    handle.opt_info()
    told = handle.get_size()
    handle.set_export_name("nobody")
    refused = [outcome(handle.opt_info), outcome(handle.opt_go)]
    handle.set_export_name("first")
    contexts = []
    handle.opt_list_meta_context(lambda name: contexts.append(name) or 0)
    handle.add_meta_context("base:allocation")
    handle.opt_go()
    return {
        "listed": listed,
        "told": told,
        "refused": refused,
        "contexts": contexts,
        "went to": handle.get_size(),
        "may ask": handle.can_meta_context("base:allocation"),
        "alive": alive(handle),
    }


def aborted():
    handle = connect(first, prepare=lambda handle: handle.set_opt_mode(True))
    handle.opt_abort()
    return handle.aio_is_closed()


def unnamed():
    def prepare(handle):
        handle.set_full_info(True)

    handle = connect(first.replace("/first", "/", 1), prepare=prepare)
    return [handle.get_canonical_export_name(), handle.get_size(), alive(handle)]


FIXED, NO_ZEROES = nbd.HANDSHAKE_FLAG_FIXED_NEWSTYLE, nbd.HANDSHAKE_FLAG_NO_ZEROES
report(
    {
        "fixed": facts(connect(first, prepare=with_flags(FIXED))),
        "simple": simple(),
        "EXPORT_NAME": facts(connect(first, prepare=with_flags(0))),
        "EXPORT_NAME NO_ZEROES": facts(connect(second, prepare=with_flags(NO_ZEROES))),
        "EXPORT_NAME unknown": outcome(lambda: connect(unknown, prepare=with_flags(0))),
        "unknown": outcome(lambda: connect(unknown)),
        "options": options(),
        "aborted": aborted(),
        "unnamed": unnamed(),
        "after all": facts(connect(second)),
    }
)
