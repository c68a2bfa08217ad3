/* The memory of a guest. Laws: a region that is taken out stays mapped while a request or a ring is in it; what JavaScript
 * sees of it is detached before it is unmapped. One thread's own. */
#include "vhost-memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct vhost_region *find(struct vhost_memory *memory, uint64_t address, uint64_t *room, bool user) {
  for (size_t index = 0; index < memory->count; index++) {
    struct vhost_region *region = memory->regions[index];
    const uint64_t into = address - (user ? region->user : region->guest);
    if (into >= region->size) continue;
    *room = region->size - into;
    /* Those that are asked for come first: a guest uses one region most of the time. */
    if (index > 0) {
      memory->regions[index] = memory->regions[index - 1];
      memory->regions[index - 1] = region;
    }
    return region;
  }
  return NULL;
}

struct vhost_region *vhost_memory_at_guest(struct vhost_memory *memory, uint64_t address, uint64_t *room) {
  return find(memory, address, room, false);
}

struct vhost_region *vhost_memory_at_user(struct vhost_memory *memory, uint64_t address, uint64_t *room) {
  return find(memory, address, room, true);
}

static uint32_t windows_of(uint64_t size) { return (uint32_t)((size + VHOST_WINDOW_BYTES - 1) >> VHOST_WINDOW_BITS); }

static void detach(struct vhost_memory *memory, struct vhost_window *window) {
  napi_handle_scope scope;
  napi_value buffer;
  window->region = NULL;
  if (window->buffer == NULL || memory->env == NULL) return;
  if (napi_open_handle_scope(memory->env, &scope) != napi_ok) return;
  if (napi_get_reference_value(memory->env, window->buffer, &buffer) == napi_ok && buffer != NULL) {
    napi_detach_arraybuffer(memory->env, buffer);
  }
  napi_delete_reference(memory->env, window->buffer);
  window->buffer = NULL;
  napi_close_handle_scope(memory->env, scope);
}

void vhost_memory_release(struct vhost_memory *memory, struct vhost_region *region) {
  if (--region->refs > 0) return;
  const uint32_t windows = windows_of(region->size);
  for (uint32_t index = 0; index < windows; index++) detach(memory, &memory->windows[region->window + index]);
  vhost_region_unmap(region);
  free(region);
}

/* Neighbouring windows that nobody has, for one region: the index of the first; UINT32_MAX when there is no memory. */
static uint32_t take_windows(struct vhost_memory *memory, struct vhost_region *region) {
  const uint32_t wanted = windows_of(region->size);
  uint32_t first = 0;
  for (uint32_t index = 0; index < memory->windows_room && index - first < wanted; index++) {
    if (memory->windows[index].region != NULL) first = index + 1;
  }
  if (first + wanted > memory->windows_room) {
    struct vhost_window *more = realloc(memory->windows, (first + wanted) * sizeof *more);
    if (more == NULL) return UINT32_MAX;
    memset(more + memory->windows_room, 0, (first + wanted - memory->windows_room) * sizeof *more);
    memory->windows = more;
    memory->windows_room = first + wanted;
  }
  for (uint32_t index = 0; index < wanted; index++) memory->windows[first + index].region = region;
  return first;
}

static bool overlap(uint64_t one, uint64_t other, uint64_t size, uint64_t other_size) {
  return one < other ? other - one < size : one - other < other_size;
}

static int check(const struct vhost_memory *memory, uint64_t guest, uint64_t size, uint64_t user) {
  if (size == 0 || guest + size < guest || user + size < user) return EINVAL;
  if (memory->count == VHOST_REGIONS_MAX) return ENOSPC;
  for (size_t index = 0; index < memory->count; index++) {
    const struct vhost_region *other = memory->regions[index];
    if (overlap(guest, other->guest, size, other->size) || overlap(user, other->user, size, other->size)) return EINVAL;
  }
  return 0;
}

int vhost_memory_add(struct vhost_memory *memory, uint64_t guest, uint64_t size, uint64_t user, uint64_t offset, int fd) {
  int error = check(memory, guest, size, user);
  if (error != 0) return error;
  struct vhost_region *region = calloc(1, sizeof *region);
  if (region == NULL) return ENOMEM;
  *region = (struct vhost_region){.guest = guest, .user = user, .refs = 1};
  error = vhost_region_map(region, fd, offset, size, &memory->lost);
  if (error != 0) {
    free(region);
    return error;
  }
  region->window = take_windows(memory, region);
  if (region->window == UINT32_MAX) {
    vhost_region_unmap(region);
    free(region);
    return ENOMEM;
  }
  memory->regions[memory->count++] = region;
  return 0;
}

int vhost_memory_remove(struct vhost_memory *memory, uint64_t guest, uint64_t size, uint64_t user) {
  for (size_t index = 0; index < memory->count; index++) {
    struct vhost_region *region = memory->regions[index];
    if (region->guest != guest || region->size != size || region->user != user) continue;
    memory->regions[index] = memory->regions[--memory->count];
    vhost_memory_release(memory, region);
    return 0;
  }
  return ENOENT;
}

void vhost_memory_remove_all(struct vhost_memory *memory) {
  while (memory->count > 0) vhost_memory_release(memory, memory->regions[--memory->count]);
}

void vhost_memory_unref(struct vhost_memory *memory) {
  if (--memory->refs > 0) return;
  free(memory->windows);
  free(memory);
}
