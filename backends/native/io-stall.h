/* Whether a call that must not wait took suspiciously long. */
#ifndef CANDOR_IO_STALL_H
#define CANDOR_IO_STALL_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* CLOCK_MONOTONIC_COARSE ticks every 4 ms at HZ=250 and costs a few nanoseconds: enough to notice a stall. */
#define STALL_MS 16

static inline int64_t io_coarse_ms(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
  return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static inline bool io_stalled_since(int64_t began_ms) { return io_coarse_ms() - began_ms >= STALL_MS; }

#endif
