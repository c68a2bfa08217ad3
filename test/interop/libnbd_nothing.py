# A read of no bytes, which the spec leaves to the server, but for the form of the answer. Argument: URI.
import sys

from libnbd_session import alive, connect, outcome, report

handle = connect(sys.argv[1])
report({"outcome": outcome(lambda: handle.pread(0, 0)), "alive": alive(handle)})
