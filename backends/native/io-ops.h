/* What one I/O operation on an image is, whoever runs it: the calling thread or the pool. */
#ifndef CANDOR_IO_OPS_H
#define CANDOR_IO_OPS_H

#include <stdint.h>

/* An outcome: 0 = the whole length is done, positive = the host's errno. Kept in step with outcome.ts. */
#define OUTCOME_WOULD_BLOCK (-1)
#define OUTCOME_SYNC_FAILED 0x10000 /* or-ed to the errno: the error was told by a sync, not by a write */
#define OUTCOME_STALLED 0x20000     /* or-ed: it is done, but it took suspiciously long */
#define OUTCOME_DETACHED 0x40000    /* the path no longer leads to this file; the sync itself succeeded */

/* Kept in step with file-io.ts. */
enum io_kind {
  IO_READ = 0,
  IO_WRITE = 1,
  IO_WRITE_DURABLE = 2, /* FUA in two halves: the write, then the same bytes with RWF_DSYNC */
  IO_FLUSH = 3, /* bytes: the image's path, NUL-terminated, or NULL */
  IO_PUNCH = 4,
  IO_ZERO_RANGE = 5,
  IO_WRITE_ZEROES = 6,
  IO_WILLNEED = 7,
  IO_EXTENTS = 8,
  IO_READ_SPARSE = 9, /* like IO_READ, but holes are told in the room behind the payload, and their bytes left alone */
  IO_SAME_FILE = 10,  /* bytes: the image's path, NUL-terminated; OUTCOME_DETACHED when it leads elsewhere */
  IO_SYNCFS = 11,
  IO_SPACE = 12,      /* bytes: room for IO_SPACE_NUMBERS doubles */
  IO_ALLOCATES = 13,  /* bytes: room for a double; flags: bytes of a block */
  IO_TRUNCATE = 14,   /* the file gets `length` bytes */
  IO_WRITE_BACK = 20, /* begins the write-back of a range, and waits for none */
};

#define IO_SPACE_NUMBERS 4
#define IO_FLAG_SETTLE 1  /* IO_SPACE: what waits for write-back is counted, even if it has to be written for that */
#define IO_FLAG_RING 2    /* IO_READ: the file can be read without a thread that waits, where there is a ring */
#define IO_FLAG_DURABLE 1 /* for the kinds that change the image without a payload: fdatasync afterwards */

struct io_op {
  enum io_kind kind;
  int flags;
  int fd;
  uint8_t *bytes; /* IO_READ, IO_WRITE…: the payload; IO_EXTENTS: room for doubles; IO_FLUSH: a path */
  int64_t length;
  int64_t offset;
};


/* Runs the operation to its end in this thread and returns its outcome. */
int io_run(const struct io_op *op);

/* The whole of a read, continued while it is short; EIO where the file ends. */
int io_read_all(int fd, uint8_t *bytes, int64_t length, int64_t offset);

/* Runs of one kind from offset on, as doubles at `bytes`: their number, then pairs (end, RUN_…), at most `flags`. */
int io_extents(const struct io_op *op);

int io_read_sparse(const struct io_op *op);

int io_space(const struct io_op *op);
int io_allocates(const struct io_op *op);

#define RUN_HOLE 0
#define RUN_DATA 1
#define RUN_UNWRITTEN 2 /* allocated, reads as zeroes */

/* Where the runs of IO_READ_SPARSE stand, counted from `bytes`: behind the payload, aligned for doubles. */
#define IO_RUNS_AT(length) (((length) + 15) & ~(int64_t)7)

/* The whole of a write, continued while it is short. */
int io_write_all(int fd, const uint8_t *bytes, int64_t length, int64_t offset, int flags);

#endif
