/* The operations themselves. Law: 0 is returned only when the kernel reported the whole length done; a short transfer
 * is continued, and one that cannot be continued is EIO. No allocation, no state: any thread may call. */
#include "io-ops.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define ZEROES_BYTES (1 << 20)

/* A long punch holds the inode's lock for its whole length and stalls every write beside it, so it goes in pieces
 * that grow while the kernel is quick and shrink when it is not. */
#define PIECE_MIN (1LL << 20)
#define PIECE_FIRST (16LL << 20)
#define PIECE_MAX (1LL << 30)
#define PIECE_QUICK_NS 1000000LL
#define PIECE_SLOW_NS 10000000LL

static const uint8_t zeroes[ZEROES_BYTES];

static int64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000LL + time.tv_nsec;
}

int io_read_all(int fd, uint8_t *bytes, int64_t length, int64_t offset) {
  while (length > 0) {
    ssize_t done = pread(fd, bytes, (size_t)length, offset);
    if (done < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    if (done == 0) return EIO; /* the file ends here: missing data is an error, never invented zeroes */
    bytes += done;
    offset += done;
    length -= done;
  }
  return 0;
}

int io_write_all(int fd, const uint8_t *bytes, int64_t length, int64_t offset, int flags) {
  while (length > 0) {
    struct iovec part = {.iov_base = (void *)bytes, .iov_len = (size_t)length};
    ssize_t done = flags == 0 ? pwrite(fd, bytes, (size_t)length, offset) : pwritev2(fd, &part, 1, offset, flags);
    if (done < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    if (done == 0) return EIO;
    bytes += done;
    offset += done;
    length -= done;
  }
  return 0;
}

static int sync_data(int fd) { return fdatasync(fd) == 0 ? 0 : errno | OUTCOME_SYNC_FAILED; }

/* Two halves: the first tells of an error of the write alone (ENOSPC into a hole loses nothing), so that an error of
 * the second is known to be one of the sync. */
static int write_durable(const struct io_op *op) {
  int outcome = io_write_all(op->fd, op->bytes, op->length, op->offset, 0);
  if (outcome != 0) return outcome;
  outcome = io_write_all(op->fd, op->bytes, op->length, op->offset, RWF_DSYNC);
  if (outcome == EOPNOTSUPP || outcome == ENOSYS) return sync_data(op->fd);
  return outcome == 0 ? 0 : outcome | OUTCOME_SYNC_FAILED;
}

static int allocate_in_pieces(const struct io_op *op, int mode) {
  int64_t piece = PIECE_FIRST;
  int64_t at = op->offset;
  const int64_t end = op->offset + op->length;
  while (at < end) {
    const int64_t length = end - at < piece ? end - at : piece;
    const int64_t began = now_ns();
    if (fallocate(op->fd, mode | FALLOC_FL_KEEP_SIZE, at, length) != 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    const int64_t took = now_ns() - began;
    if (took < PIECE_QUICK_NS && piece < PIECE_MAX) piece *= 2;
    if (took > PIECE_SLOW_NS && piece > PIECE_MIN) piece /= 2;
    at += length;
  }
  return 0;
}

static int write_zeroes(const struct io_op *op) {
  int64_t at = op->offset;
  int64_t left = op->length;
  while (left > 0) {
    const int64_t length = left < ZEROES_BYTES ? left : ZEROES_BYTES;
    const int outcome = io_write_all(op->fd, zeroes, length, at, 0);
    if (outcome != 0) return outcome;
    at += length;
    left -= length;
  }
  return 0;
}

/* Whether the path still leads to this file: a sync of a file that nobody can find again is not what FLUSH promises. */
static int same_file(const struct io_op *op) {
  struct stat ours, named;
  if (op->bytes == NULL) return 0;
  if (fstat(op->fd, &ours) != 0) return errno;
  if (stat((const char *)op->bytes, &named) != 0) return errno == ENOENT || errno == ENOTDIR ? OUTCOME_DETACHED : 0;
  return ours.st_dev == named.st_dev && ours.st_ino == named.st_ino ? 0 : OUTCOME_DETACHED;
}

static int flush(const struct io_op *op) {
  const int outcome = sync_data(op->fd);
  return outcome == 0 ? same_file(op) : outcome;
}

/* SYNC_FILE_RANGE_WRITE alone: it neither waits nor asks for an error that is to be told, so it takes none away from those
 * who are to hear of it. An errno is one of beginning, of which nobody else may hear. */
static int write_back(const struct io_op *op) {
  if (sync_file_range(op->fd, op->offset, op->length, SYNC_FILE_RANGE_WRITE) == 0) return 0;
  return errno == ESPIPE || errno == EINVAL || errno == ENOSYS ? 0 : errno;
}

static int changed(const struct io_op *op, int outcome) {
  return outcome == 0 && (op->flags & IO_FLAG_DURABLE) ? sync_data(op->fd) : outcome;
}

int io_run(const struct io_op *op) {
  switch (op->kind) {
    case IO_READ: return io_read_all(op->fd, op->bytes, op->length, op->offset);
    case IO_WRITE: return io_write_all(op->fd, op->bytes, op->length, op->offset, 0);
    case IO_WRITE_DURABLE: return write_durable(op);
    case IO_FLUSH: return flush(op);
    case IO_PUNCH: return changed(op, allocate_in_pieces(op, FALLOC_FL_PUNCH_HOLE));
    case IO_ZERO_RANGE: return changed(op, allocate_in_pieces(op, FALLOC_FL_ZERO_RANGE));
    case IO_WRITE_ZEROES: return changed(op, write_zeroes(op));
    case IO_WILLNEED: return posix_fadvise(op->fd, op->offset, op->length, POSIX_FADV_WILLNEED);
    case IO_SAME_FILE: return same_file(op);
    case IO_SYNCFS: return syncfs(op->fd) == 0 ? 0 : errno | OUTCOME_SYNC_FAILED;
    case IO_WRITE_BACK: return write_back(op);
    case IO_EXTENTS: return io_extents(op);
    case IO_READ_SPARSE: return io_read_sparse(op);
    case IO_TRUNCATE: return ftruncate(op->fd, op->length) == 0 ? 0 : errno;
    case IO_SPACE: return io_space(op);
    case IO_ALLOCATES: return io_allocates(op);
  }
  return EINVAL;
}
