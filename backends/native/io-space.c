/* The space under an image: what its file system has left, and what a write would take of it. Law: where the host cannot
 * tell, a write is said to take all that it covers. */
#include <errno.h>
#include <linux/btrfs.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "io-ops.h"

/* Extents asked of FIEMAP at a time. */
#define FIEMAP_EXTENTS 64

/* As doubles at `bytes`: bytes free for everybody (f_bavail), bytes of the file system, bytes that the image takes, bytes
 * of a block. With IO_FLAG_SETTLE what was written is given its place first, where statfs does not know of it before. */
int io_space(const struct io_op *op) {
  struct statfs system;
  struct stat file;
  double *answer = (double *)(void *)op->bytes;
  /* btrfs counts data that wait for write-back as free. This commits them without a word on errors, which stay untold
   * for the next fsync to tell (syncfs would take them). */
  if (op->flags & IO_FLAG_SETTLE) ioctl(op->fd, BTRFS_IOC_SYNC);
  if (fstatfs(op->fd, &system) != 0 || fstat(op->fd, &file) != 0) return errno;
  const double unit = (double)(system.f_frsize > 0 ? system.f_frsize : system.f_bsize);
  answer[0] = unit * (double)system.f_bavail;
  answer[1] = unit * (double)system.f_blocks;
  answer[2] = 512.0 * (double)file.st_blocks;
  answer[3] = (double)system.f_bsize;
  return 0;
}

/* A block is taken whole. */
static int64_t blocks(int64_t from, int64_t to, int64_t block) {
  return (to + block - 1) / block * block - from / block * block;
}

/* File systems without FIEMAP: what reads as a hole may still be allocated, but nobody can tell. */
static int64_t holes(int fd, int64_t at, int64_t end, int64_t block) {
  int64_t taken = 0;
  while (at < end) {
    const int64_t data = lseek(fd, at, SEEK_DATA);
    if (data < 0 && errno != ENXIO) return taken + blocks(at, end, block);
    const int64_t begins = data < 0 || data > end ? end : data;
    if (begins > at) taken += blocks(at, begins, block);
    if (begins == end) return taken;
    const int64_t hole = lseek(fd, begins, SEEK_HOLE);
    if (hole <= begins) return taken + blocks(begins, end, block);
    at = hole;
  }
  return taken;
}

/* As a double at `bytes`: bytes of new space that a write of the range takes, with blocks of `flags` bytes. Space that was
 * reserved (UNWRITTEN) or promised (DELALLOC) is there; what is shared with another file is copied when it is written. */
int io_allocates(const struct io_op *op) {
  union {
    struct fiemap map;
    char room[sizeof(struct fiemap) + FIEMAP_EXTENTS * sizeof(struct fiemap_extent)];
  } ask;
  double *answer = (double *)(void *)op->bytes;
  const int64_t block = op->flags, end = op->offset + op->length;
  int64_t at = op->offset, taken = 0;
  int more = 1;
  while (at < end && more) {
    memset(&ask.map, 0, sizeof ask.map);
    ask.map.fm_start = (uint64_t)at;
    ask.map.fm_length = (uint64_t)(end - at);
    ask.map.fm_extent_count = FIEMAP_EXTENTS;
    if (ioctl(op->fd, FS_IOC_FIEMAP, &ask.map) != 0) {
      taken += holes(op->fd, at, end, block);
      at = end;
      break;
    }
    const int64_t before = at;
    for (uint32_t index = 0; index < ask.map.fm_mapped_extents; index++) {
      const struct fiemap_extent *extent = &ask.map.fm_extents[index];
      const int64_t begins = (int64_t)extent->fe_logical, ends = (int64_t)(extent->fe_logical + extent->fe_length);
      const int64_t from = begins > at ? begins : at, to = ends < end ? ends : end;
      if (to <= at || from >= end) continue;
      if (from > at) taken += blocks(at, from, block);
      if (extent->fe_flags & FIEMAP_EXTENT_SHARED) taken += blocks(from, to, block);
      at = to;
    }
    more = ask.map.fm_mapped_extents == FIEMAP_EXTENTS && at > before;
  }
  if (at < end) taken += blocks(at, end, block);
  answer[0] = (double)taken;
  return 0;
}
