/* A virtqueue. Laws: a request that was taken out of the ring is answered exactly once, and only while the ring is running,
 * sound and in memory that was not cut off; the in-flight log knows of it from before it is served until after its
 * answer is visible. */
#include "vhost-ring.h"

#include <errno.h>
#include <stdlib.h>

/* Where an area of the ring lies: in one region, whole and aligned. */
static uint8_t *area(struct vhost_ring *ring, int which, uint64_t address, uint64_t bytes, unsigned alignment, int *error) {
  uint64_t room;
  struct vhost_region *region = vhost_memory_at_user(ring->memory, address, &room);
  if (region == NULL || room < bytes) {
    *error = EFAULT;
    return NULL;
  }
  uint8_t *at = region->bytes + (address - region->user);
  if (((uintptr_t)at & (alignment - 1)) != 0) {
    *error = EINVAL;
    return NULL;
  }
  region->refs += 1;
  ring->pinned[which] = region;
  return at;
}

static int find_areas(struct vhost_ring *ring, const struct vhost_ring_options *options) {
  const uint64_t size = options->size;
  int error = 0;
  ring->descriptors = area(ring, 0, options->descriptors, size * VHOST_DESC_BYTES, 16, &error);
  if (error != 0) return error;
  ring->driver = area(ring, 1, options->driver, options->packed ? 4 : 6 + 2 * size, options->packed ? 4 : 2, &error);
  if (error != 0) return error;
  ring->device = area(ring, 2, options->device, options->packed ? 4 : 6 + 8 * size, 4, &error);
  return error;
}

static int set_base(struct vhost_ring *ring, uint32_t base) {
  if (!ring->packed) {
    if (base > UINT16_MAX) return EINVAL;
    ring->avail = (uint16_t)base;
    return 0;
  }
  ring->avail = base & 0x7fff;
  ring->avail_wrap = (base >> 15 & 1) != 0;
  ring->used = base >> 16 & 0x7fff;
  ring->used_wrap = base >> 31 != 0;
  return ring->avail < ring->size && ring->used < ring->size ? 0 : EINVAL;
}

int vhost_ring_open(struct vhost_ring *ring, struct vhost_memory *memory, const struct vhost_ring_options *options) {
  const uint16_t size = options->size;
  *ring = (struct vhost_ring){
      .size = size, .packed = options->packed, .event_idx = options->event_idx, .indirect = options->indirect};
  ring->memory = memory;
  memory->refs += 1;
  if (size == 0 || size > VHOST_RING_SIZE_MAX || (!options->packed && (size & (size - 1)) != 0)) return EINVAL;
  ring->chains = calloc(size, sizeof *ring->chains);
  if (options->log_fd >= 0) ring->left.heads = calloc(size, sizeof *ring->left.heads);
  if (options->packed) ring->descs = calloc(size, sizeof *ring->descs);
  if (ring->chains == NULL || (options->log_fd >= 0 && ring->left.heads == NULL) || (options->packed && ring->descs == NULL)) {
    return ENOMEM;
  }
  int error = set_base(ring, options->base);
  if (error == 0) error = find_areas(ring, options);
  if (error != 0) return error;
  return vhost_log_open(&ring->log, options->log_fd, options->log_offset, options->log_length, size, options->packed,
                        &memory->lost);
}

/* The id's chain serves no request any more. */
static void spare(struct vhost_ring *ring, uint16_t id) {
  struct vhost_chain *chain = ring->chains[id];
  ring->chains[id] = NULL;
  vhost_chain_release(chain, ring->memory);
  chain->spare = ring->spares;
  ring->spares = chain;
}

struct vhost_chain *vhost_ring_begin(struct vhost_ring *ring, uint16_t id) {
  struct vhost_chain *chain = ring->spares;
  if (chain != NULL) ring->spares = chain->spare;
  else chain = calloc(1, sizeof *chain);
  if (chain == NULL) return NULL;
  vhost_chain_begin(chain);
  ring->chains[id] = chain;
  return chain;
}

int vhost_ring_drop(struct vhost_ring *ring, uint16_t id, const char *reason) {
  spare(ring, id);
  return vhost_ring_broke(ring, reason);
}

void vhost_ring_close(struct vhost_ring *ring) {
  if (ring->memory == NULL) return;
  ring->running = false;
  for (uint16_t id = 0; ring->chains != NULL && id < ring->size; id++) {
    if (ring->chains[id] != NULL) spare(ring, id);
  }
  while (ring->spares != NULL) {
    struct vhost_chain *chain = ring->spares;
    ring->spares = chain->spare;
    free(chain->segments);
    free(chain);
  }
  for (int which = 0; which < 3; which++) {
    if (ring->pinned[which] != NULL) vhost_memory_release(ring->memory, ring->pinned[which]);
  }
  vhost_log_close(&ring->log);
  free(ring->chains);
  free(ring->left.heads);
  free(ring->descs);
  vhost_memory_unref(ring->memory);
  *ring = (struct vhost_ring){0};
}

/* Guest memory that is gone is looked at no more. */
static bool sound(struct vhost_ring *ring) {
  if (vhost_memory_lost(ring->memory)) vhost_ring_broke(ring, "the memory of the guest was cut off");
  return ring->broken == NULL;
}

void vhost_ring_start(struct vhost_ring *ring) {
  if (!sound(ring)) return;
  ring->running = true;
  if (ring->packed) vhost_packed_start(ring);
  else vhost_split_start(ring);
  sound(ring);
}

int vhost_ring_next(struct vhost_ring *ring) {
  if (!sound(ring)) return VHOST_RING_BROKEN;
  const int id = ring->packed ? vhost_packed_next(ring) : vhost_split_next(ring);
  if (id < 0) return sound(ring) ? id : VHOST_RING_BROKEN;
  if (!sound(ring)) {
    /* Read from memory that is gone: nobody has heard of it yet. */
    ring->out -= 1;
    spare(ring, (uint16_t)id);
    return VHOST_RING_BROKEN;
  }
  return id;
}

void vhost_ring_complete(struct vhost_ring *ring, uint16_t id, uint8_t status, uint32_t written) {
  if (ring->running && sound(ring)) {
    const struct vhost_chain *chain = ring->chains[id];
    *(volatile uint8_t *)chain->status = status;
    /* What is told begins at the front (virtio 1.2, 2.7.8.2): the status byte is part of it when all before it was written. */
    const uint32_t length = written == chain->in_length ? written + 1 : written;
    if (ring->packed) vhost_packed_push(ring, id, length);
    else vhost_split_push(ring, id, length);
  }
  ring->out -= 1;
  spare(ring, id);
}

bool vhost_ring_wants_call(struct vhost_ring *ring) {
  if (!ring->running || !sound(ring)) return false;
  return ring->packed ? vhost_packed_wants_call(ring) : vhost_split_wants_call(ring);
}

void vhost_ring_hush(struct vhost_ring *ring) {
  if (!ring->running || !sound(ring)) return;
  if (ring->packed) vhost_packed_hush(ring);
  else vhost_split_hush(ring);
}

bool vhost_ring_ready(const struct vhost_ring *ring) {
  if (ring->left_at < ring->left.count) return true;
  return ring->packed ? vhost_packed_ready(ring) : vhost_split_ready(ring);
}

bool vhost_ring_listen(struct vhost_ring *ring) {
  if (!ring->running || !sound(ring)) return false;
  if (ring->packed) vhost_packed_listen(ring);
  else vhost_split_listen(ring);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  return vhost_ring_ready(ring) || !sound(ring);
}

uint32_t vhost_ring_base(const struct vhost_ring *ring) {
  if (!ring->packed) return ring->avail;
  return (uint32_t)ring->avail | (uint32_t)ring->avail_wrap << 15 | (uint32_t)ring->used << 16 |
         (uint32_t)ring->used_wrap << 31;
}
