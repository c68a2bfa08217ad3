/* A ring as it lies in memory: shared with the kernel, and known to io-ring.c and io-ring-map.c alone. */
#ifndef CANDOR_IO_RING_MAP_H
#define CANDOR_IO_RING_MAP_H

#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__has_include) && __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#endif

#include "io-job.h"

/* The header has IORING_OP_READ, an enumerator, since the version that has this macro (Linux 5.6). */
#if defined(SYS_io_uring_setup) && defined(IORING_FEAT_RW_CUR_POS)
#define CANDOR_HAS_IO_URING

struct io_ring {
  int fd;
  int event; /* the ring's own descriptor does not tell of completions that wait for us to ask */
  void *map;
  size_t map_bytes, entry_bytes;
  unsigned *submit_tail, *done_head, *done_tail;
  unsigned submit_mask, submissions, done_mask, completions;
  struct io_uring_sqe *entries;
  struct io_uring_cqe *results;
  struct io_list queued;
  unsigned in_flight;
};

/* io_uring_enter(2), which also does what waits for us to ask. */
static inline int io_ring_enter(const struct io_ring *ring, unsigned count, unsigned wait_for) {
  return (int)syscall(SYS_io_uring_enter, ring->fd, count, wait_for, IORING_ENTER_GETEVENTS, NULL, 0);
}

#endif

#endif
