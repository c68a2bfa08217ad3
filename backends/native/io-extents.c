/* Where an image has data, where it has holes, and where it has space that was never written. Law: what a file no
 * longer has (somebody truncated it) is an error to a read, never a hole. */
#include <errno.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io-ops.h"

/* Extents asked of FIEMAP at a time. */
#define FIEMAP_EXTENTS 64
/* How often a place may change under a look before it is taken for data. */
#define RACES_MAX 64
#define RACE_STEP 4096

/* Runs gathered so far; a run of the kind of the one before makes that one longer. */
struct runs {
  double *numbers;
  int count, limit;
};

static int append(struct runs *runs, int64_t end, int kind) {
  double *next = runs->numbers + 1 + 2 * runs->count;
  if (runs->count > 0 && next[-1] == kind) {
    next[-2] = (double)end;
    return 1;
  }
  if (runs->count == runs->limit) return 0;
  next[0] = (double)end;
  next[1] = kind;
  runs->count += 1;
  return 1;
}

/* What is a hole to SEEK_HOLE may be space that was reserved and not written: FIEMAP knows. Returns 0 when the limit
 * is reached. File systems without FIEMAP have their word for a hole believed. */
static int append_hole(struct runs *runs, int fd, int64_t at, int64_t end) {
  union {
    struct fiemap map;
    char room[sizeof(struct fiemap) + FIEMAP_EXTENTS * sizeof(struct fiemap_extent)];
  } ask;
  while (at < end) {
    memset(&ask.map, 0, sizeof ask.map);
    ask.map.fm_start = (uint64_t)at;
    ask.map.fm_length = (uint64_t)(end - at);
    ask.map.fm_extent_count = FIEMAP_EXTENTS;
    if (ioctl(fd, FS_IOC_FIEMAP, &ask.map) != 0 || ask.map.fm_mapped_extents == 0) return append(runs, end, RUN_HOLE);
    for (uint32_t index = 0; index < ask.map.fm_mapped_extents; index++) {
      const struct fiemap_extent *extent = &ask.map.fm_extents[index];
      const int64_t from = (int64_t)extent->fe_logical > at ? (int64_t)extent->fe_logical : at;
      int64_t to = (int64_t)(extent->fe_logical + extent->fe_length);
      if (to > end) to = end;
      if (from >= end || to <= from) continue;
      if (from > at && !append(runs, from, RUN_HOLE)) return 0;
      /* Data that was written since SEEK looked is data; so is whatever FIEMAP does not call unwritten. */
      if (!append(runs, to, extent->fe_flags & FIEMAP_EXTENT_UNWRITTEN ? RUN_UNWRITTEN : RUN_DATA)) return 0;
      at = to;
      if (extent->fe_flags & FIEMAP_EXTENT_LAST) return at >= end || append(runs, end, RUN_HOLE);
    }
    if (ask.map.fm_mapped_extents < FIEMAP_EXTENTS) return at >= end || append(runs, end, RUN_HOLE);
  }
  return 1;
}

static int gather(struct runs *runs, int fd, int64_t at, int64_t end, int told_apart) {
  int races = 0;
  while (at < end) {
    const int64_t data = lseek(fd, at, SEEK_DATA);
    if (data < 0 && errno != ENXIO) return errno;
    const int is_data = data == at;
    int64_t next = is_data ? lseek(fd, at, SEEK_HOLE) : data;
    if (next < 0 && errno != ENXIO) return errno;
    if (next < 0 || next > end) next = end;
    if (next <= at) {
      /* A punch between the two calls made a hole of what was data: look again. A page that changes all the time may
       * as well be called data. */
      if (++races < RACES_MAX) continue;
      next = at + RACE_STEP < end ? at + RACE_STEP : end;
    }
    if (is_data) {
      if (!append(runs, next, RUN_DATA)) return 0;
    } else if (!(told_apart ? append_hole(runs, fd, at, next) : append(runs, next, RUN_HOLE))) {
      return 0;
    }
    at = next;
  }
  return 0;
}

/* What a file no longer has is told as data: whoever reads it gets an error, and never takes it for zeroes. */
int io_extents(const struct io_op *op) {
  struct stat status;
  struct runs runs = {.numbers = (double *)(void *)op->bytes, .limit = op->flags};
  const int64_t end = op->offset + op->length;
  if (fstat(op->fd, &status) != 0) return errno;
  const int64_t there = S_ISREG(status.st_mode) && status.st_size < end ? status.st_size : end;
  int error = 0;
  if (op->offset < there) error = gather(&runs, op->fd, op->offset, there, 1);
  const int64_t told = runs.count == 0 ? op->offset : (int64_t)runs.numbers[2 * runs.count - 1];
  if (error == 0 && there < end && told >= there) append(&runs, end, RUN_DATA);
  runs.numbers[0] = runs.count;
  return error;
}

/* More runs than there is room for: the rest is read as if it were data, which it may as well be. */
int io_read_sparse(const struct io_op *op) {
  struct stat status;
  const int64_t end = op->offset + op->length;
  struct runs runs = {.numbers = (double *)(void *)(op->bytes + IO_RUNS_AT(op->length)), .limit = op->flags - 1};
  if (fstat(op->fd, &status) != 0) return errno;
  if (S_ISREG(status.st_mode) && status.st_size < end) return EIO;
  int error = gather(&runs, op->fd, op->offset, end, 0);
  if (error == EINVAL || error == EOPNOTSUPP) error = 0; /* no holes are known here: all is data */
  if (error != 0) return error;
  int64_t at = op->offset;
  for (int index = 0; index <= runs.count; index++) {
    double *pair = runs.numbers + 1 + 2 * index;
    if (index == runs.count) {
      if (at == end) break;
      pair[0] = (double)end;
      pair[1] = RUN_DATA;
      runs.count += 1;
    }
    const int64_t next = (int64_t)pair[0];
    if (pair[1] == RUN_DATA) error = io_read_all(op->fd, op->bytes + (at - op->offset), next - at, at);
    if (error != 0) return error;
    at = next;
  }
  runs.numbers[0] = runs.count;
  return 0;
}
