/* A stretch of a guest's memory, mapped. */
#ifndef CANDOR_VHOST_REGION_H
#define CANDOR_VHOST_REGION_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "vhost-guard.h"

struct vhost_region {
  uint64_t guest, user, size; /* as the front end names it */
  uint8_t *bytes;             /* of the region's first byte */
  uint32_t window;            /* index of its first window */
  int refs;                   /* the memory's own, and one for each piece of a request or ring that lies in it */
  void *mapped;
  size_t mapped_length;
  struct vhost_guard *guard;
};

/* Maps `size` bytes at `offset` of a file, wherever they begin in a page; guarded. 0 or an errno. */
int vhost_region_map(struct vhost_region *region, int fd, uint64_t offset, uint64_t size, atomic_int *lost);
void vhost_region_unmap(struct vhost_region *region);

#endif
