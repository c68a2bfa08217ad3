# The largest requests, and 64 at once. Argument: URI of an empty export of 64 MiB.
import sys

import nbd
from libnbd_session import MIB, alive, connect, pattern, report

DEPTH = 64
handle = connect(sys.argv[1], ["base:allocation"])


def largest():
    data = pattern(32 * MIB, 1)
    handle.pwrite(data, 12345)
    return bytes(handle.pread(len(data), 12345)) == data


class Tally:
    """Issues commands without waiting, and counts the answers to each."""

    def __init__(self):
        self.answers = []
        self.errors = 0
        self.most = 0

    def completion(self):
        self.answers.append(0)
        index = len(self.answers) - 1

        def completed(error):
            self.answers[index] += 1
            self.errors += error.value != 0
            return 1

        return completed

    def issue(self, command, *arguments):
        command(*arguments, completion=self.completion())
        self.most = max(self.most, handle.aio_in_flight())

    def wait(self):
        while handle.aio_in_flight() > 0:
            handle.poll(-1)

    def report(self):
        return {
            "issued": len(self.answers),
            "answered once": sum(count == 1 for count in self.answers),
            "errors": self.errors,
            "most in flight": self.most,
        }


def parallel():
    """Quick and slow commands mixed, in ranges of their own; a read follows each write without waiting for it."""
    lengths = [512, 4096, 65536, 1, 262144, 513, 131072, 4095]
    places = [(index * 512 * 1024 + index, pattern(lengths[index % 8], index)) for index in range(DEPTH)]
    writes, reads = Tally(), Tally()
    for index, (offset, data) in enumerate(places):
        flags = nbd.CMD_FLAG_FUA if index % 3 == 0 else 0
        payload = nbd.Buffer.from_bytearray(bytearray(data))
        writes.issue(lambda completion: handle.aio_pwrite(payload, offset, completion, flags))
    writes.wait()
    buffers = []
    for index, (offset, data) in enumerate(places):
        buffer = nbd.Buffer(len(data))
        buffers.append(buffer)
        if index % 4 == 3:
            reads.issue(lambda completion: handle.aio_zero(4096, offset + 300000, completion, 0))
        if index % 4 == 1:
            reads.issue(lambda completion: handle.aio_flush(completion))
        if index % 4 == 2:
            reads.issue(lambda completion: handle.aio_block_status(512 * 1024, offset, lambda *_: 0, completion))
        reads.issue(lambda completion: handle.aio_pread(buffer, offset, completion))
    reads.wait()
    wrong = [index for index, buffer in enumerate(buffers) if bytes(buffer.to_bytearray()) != places[index][1]]
    return {"writes": writes.report(), "reads": reads.report(), "wrong": wrong}


report({"largest": largest(), "parallel": parallel(), "alive": alive(handle)})
