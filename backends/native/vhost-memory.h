/* The memory of a guest: its regions, and where an address of the other side lies in them. */
#ifndef CANDOR_VHOST_MEMORY_H
#define CANDOR_VHOST_MEMORY_H

#include <node_api.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vhost-region.h"

#define VHOST_REGIONS_MAX 64
/* A window is what JavaScript sees at once: typed arrays have an end. */
#define VHOST_WINDOW_BITS 30
#define VHOST_WINDOW_BYTES ((uint64_t)1 << VHOST_WINDOW_BITS)

struct vhost_window {
  struct vhost_region *region; /* NULL: free */
  napi_ref buffer;             /* NULL: nobody asked for it yet */
};

struct vhost_memory {
  napi_env env; /* NULL when it has ended: no buffer can be detached any more, and none is used any more */
  atomic_int lost;
  int refs; /* JavaScript's, and one for each queue */
  struct vhost_region *regions[VHOST_REGIONS_MAX];
  size_t count;
  struct vhost_window *windows;
  uint32_t windows_room;
};

static inline bool vhost_memory_lost(struct vhost_memory *memory) {
  return atomic_load_explicit(&memory->lost, memory_order_relaxed) != 0;
}

/* The region that holds the address, and how many bytes it has from there on; NULL where there is none. */
struct vhost_region *vhost_memory_at_guest(struct vhost_memory *memory, uint64_t address, uint64_t *room);
struct vhost_region *vhost_memory_at_user(struct vhost_memory *memory, uint64_t address, uint64_t *room);
/* Gives back a reference; the last one unmaps. */
void vhost_memory_release(struct vhost_memory *memory, struct vhost_region *region);
void vhost_memory_unref(struct vhost_memory *memory);

/* 0 or an errno, as VhostMemory.add and remove tell them. */
int vhost_memory_add(struct vhost_memory *memory, uint64_t guest, uint64_t size, uint64_t user, uint64_t offset, int fd);
int vhost_memory_remove(struct vhost_memory *memory, uint64_t guest, uint64_t size, uint64_t user);
void vhost_memory_remove_all(struct vhost_memory *memory);

napi_status vhost_memory_define(napi_env env, napi_value exports);

#endif
