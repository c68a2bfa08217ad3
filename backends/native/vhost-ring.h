/* A virtqueue of either kind, in a guest's memory. Nothing here knows of the event loop. */
#ifndef CANDOR_VHOST_RING_H
#define CANDOR_VHOST_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "vhost-chain.h"
#include "vhost-log.h"
#include "vhost-memory.h"

/* The largest ring of virtio. What costs memory goes with the requests that are out, which the queue bounds. */
#define VHOST_RING_SIZE_MAX 32768
#define VHOST_RING_NONE (-1)
#define VHOST_RING_BROKEN (-2)

struct vhost_ring {
  struct vhost_memory *memory;
  uint16_t size;
  bool packed, event_idx, indirect;
  bool running; /* between start and stop: only then is the ring touched */
  const char *broken;
  /* Descriptors; what the driver writes; what we write (virtio 1.2, 2.7 and 2.8). Pinned. */
  uint8_t *descriptors, *driver, *device;
  struct vhost_region *pinned[3];
  /* Split: running numbers. Packed: places in the ring, with their wrap counters. */
  uint16_t avail, used, signalled;
  bool avail_wrap, used_wrap, signalled_valid;
  struct vhost_chain **chains; /* by id; NULL: not out */
  struct vhost_chain *spares;
  uint16_t out;
  struct vhost_log log;
  struct vhost_log_heads left; /* by a former back-end, to be done first */
  uint16_t left_at;
  struct vhost_desc *descs; /* packed: those of the chain that is being read */
};

struct vhost_ring_options {
  uint16_t size;
  bool packed, event_idx, indirect;
  uint32_t base;
  uint64_t descriptors, driver, device; /* user addresses */
  int log_fd;                           /* -1: no in-flight log */
  uint64_t log_offset, log_length;
};

/* 0 or an errno. Holds a reference to the memory until vhost_ring_close, which is called in either case. */
int vhost_ring_open(struct vhost_ring *ring, struct vhost_memory *memory, const struct vhost_ring_options *options);
void vhost_ring_close(struct vhost_ring *ring);
/* Looks at used index and in-flight log; `broken` is set when they cannot be. */
void vhost_ring_start(struct vhost_ring *ring);
/* The id of the next request, VHOST_RING_NONE, or VHOST_RING_BROKEN. */
int vhost_ring_next(struct vhost_ring *ring);
/* `written`: bytes of data, from the front on. */
void vhost_ring_complete(struct vhost_ring *ring, uint16_t id, uint8_t status, uint32_t written);
/* Whether the driver wants to be told of what was completed since this was asked last. */
bool vhost_ring_wants_call(struct vhost_ring *ring);
/* While we look at the ring anyway, the driver need not kick. */
void vhost_ring_hush(struct vhost_ring *ring);
/* Asks for the next kick. True when something came in the meantime. */
bool vhost_ring_listen(struct vhost_ring *ring);
/* Whether something is there to be read, without reading it. */
bool vhost_ring_ready(const struct vhost_ring *ring);
uint32_t vhost_ring_base(const struct vhost_ring *ring);

/* A chain for the id, from here on until it is complete or dropped; NULL: no memory for it. */
struct vhost_chain *vhost_ring_begin(struct vhost_ring *ring, uint16_t id);
/* The chain cannot be served, for this reason: VHOST_RING_BROKEN. */
int vhost_ring_drop(struct vhost_ring *ring, uint16_t id, const char *reason);

/* The two kinds. `next` is called with room for one more, `push` with the status byte written and the length to tell. */
void vhost_split_start(struct vhost_ring *ring);
int vhost_split_next(struct vhost_ring *ring);
void vhost_split_push(struct vhost_ring *ring, uint16_t id, uint32_t length);
bool vhost_split_wants_call(struct vhost_ring *ring);
void vhost_split_hush(struct vhost_ring *ring);
void vhost_split_listen(struct vhost_ring *ring);
bool vhost_split_ready(const struct vhost_ring *ring);

void vhost_packed_start(struct vhost_ring *ring);
int vhost_packed_next(struct vhost_ring *ring);
void vhost_packed_push(struct vhost_ring *ring, uint16_t id, uint32_t length);
bool vhost_packed_wants_call(struct vhost_ring *ring);
void vhost_packed_hush(struct vhost_ring *ring);
void vhost_packed_listen(struct vhost_ring *ring);
bool vhost_packed_ready(const struct vhost_ring *ring);

static inline int vhost_ring_broke(struct vhost_ring *ring, const char *reason) {
  if (ring->broken == NULL) ring->broken = reason;
  return VHOST_RING_BROKEN;
}

/* Whether the event that the driver waits for lies in (before, now] (virtio 1.2, 2.7.10). */
static inline bool vhost_passed(uint16_t event, uint16_t now, uint16_t before) {
  return (uint16_t)(now - event - 1) < (uint16_t)(now - before);
}

#endif
