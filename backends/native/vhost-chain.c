/* One request of a guest. Laws: a descriptor is read once, its address and length are checked, and what it names is pinned
 * until the request is complete; the length of a chain is bounded, so that a loop ends. */
#include "vhost-chain.h"

#include <stdlib.h>
#include <string.h>

/* virtio 1.2, 5.2.6: type, reserved, sector. */
#define HEADER_BYTES 16
#define SEGMENTS_FIRST 8
/* Room that a chain keeps for the next request of its id: a guest could make all of them long, one after the other. */
#define SEGMENTS_KEPT 64

struct vhost_desc vhost_desc_split(const uint8_t *at) {
  return (struct vhost_desc){
      *(const guest64 *)at, *(const guest32 *)(at + 8), *(const guest16 *)(at + 12), *(const guest16 *)(at + 14)};
}

struct vhost_desc vhost_desc_packed(const uint8_t *at) {
  return (struct vhost_desc){
      *(const guest64 *)at, *(const guest32 *)(at + 8), *(const guest16 *)(at + 14), *(const guest16 *)(at + 12)};
}

void vhost_chain_begin(struct vhost_chain *chain) {
  chain->writing = false;
  chain->ring_descs = 0;
  chain->descs = chain->count = chain->readable = 0;
  chain->out_length = chain->in_length = 0;
  chain->status = NULL;
  chain->status_region = NULL;
}

static bool append(struct vhost_chain *chain, struct vhost_region *region, uint8_t *bytes, size_t length) {
  struct vhost_segment *last = chain->count == 0 ? NULL : &chain->segments[chain->count - 1];
  const bool same_side = chain->count > (chain->writing ? chain->readable : 0);
  if (last != NULL && same_side && last->region == region && last->bytes + last->length == bytes) {
    last->length += length;
    return true;
  }
  if (chain->count == chain->room) {
    const uint32_t room = chain->room == 0 ? SEGMENTS_FIRST : 2 * chain->room;
    struct vhost_segment *more = realloc(chain->segments, room * sizeof *more);
    if (more == NULL) return false;
    chain->segments = more;
    chain->room = room;
  }
  region->refs += 1;
  chain->segments[chain->count++] = (struct vhost_segment){region, bytes, length};
  if (!chain->writing) chain->readable = chain->count;
  return true;
}

const char *vhost_chain_add(struct vhost_chain *chain, struct vhost_memory *memory, const struct vhost_desc *desc) {
  const bool writable = (desc->flags & VHOST_DESC_WRITE) != 0;
  if (++chain->descs > VHOST_CHAIN_MAX) return "a chain of descriptors is too long, or a loop";
  if (desc->length == 0) return "a descriptor has no length";
  if (chain->writing && !writable) return "a readable descriptor comes after a writable one";
  chain->writing = writable;
  if (writable) chain->in_length += desc->length;
  else chain->out_length += desc->length;
  uint64_t address = desc->address, room;
  /* Neighbouring regions may share a descriptor: a guest sees one memory. At most 64 rounds. */
  for (uint64_t left = desc->length; left > 0;) {
    struct vhost_region *region = vhost_memory_at_guest(memory, address, &room);
    if (region == NULL) return "a descriptor points outside of the guest's memory";
    const uint64_t some = left < room ? left : room;
    if (chain->count == VHOST_SEGMENTS_MAX) return "a request lies in too many pieces of memory";
    if (!append(chain, region, region->bytes + (address - region->guest), some)) return "out of memory";
    left -= some;
    address += some;
  }
  return NULL;
}

/* 16 bytes of a table at an address; they may lie in two regions. */
static bool read_desc(struct vhost_memory *memory, uint64_t address, bool packed, struct vhost_desc *into) {
  uint8_t copy[VHOST_DESC_BYTES];
  uint64_t room;
  const struct vhost_region *region = vhost_memory_at_guest(memory, address, &room);
  if (region == NULL) return false;
  const uint8_t *at = region->bytes + (address - region->guest);
  if (room < VHOST_DESC_BYTES) {
    for (int index = 0; index < VHOST_DESC_BYTES; index++) {
      region = vhost_memory_at_guest(memory, address + (uint64_t)index, &room);
      if (region == NULL) return false;
      copy[index] = *(volatile uint8_t *)(region->bytes + (address + (uint64_t)index - region->guest));
    }
    at = copy;
  }
  *into = packed ? vhost_desc_packed(at) : vhost_desc_split(at);
  return true;
}

const char *vhost_chain_add_indirect(struct vhost_chain *chain, struct vhost_memory *memory,
                                     const struct vhost_desc *table, bool packed) {
  const uint32_t length = table->length / VHOST_DESC_BYTES;
  if (table->length % VHOST_DESC_BYTES != 0 || length == 0) return "an indirect table has no whole number of descriptors";
  if (length > VHOST_CHAIN_MAX) return "an indirect table is too long";
  if (!packed && (table->flags & VHOST_DESC_NEXT)) return "a descriptor is indirect and goes on";
  for (uint32_t index = 0;;) {
    struct vhost_desc desc;
    const uint64_t address = table->address + (uint64_t)index * VHOST_DESC_BYTES;
    if (address < table->address || !read_desc(memory, address, packed, &desc)) {
      return "an indirect table lies outside of the guest's memory";
    }
    if (desc.flags & VHOST_DESC_INDIRECT) return "an indirect table names another";
    const char *broken = vhost_chain_add(chain, memory, &desc);
    if (broken != NULL) return broken;
    if (packed) {
      if (++index == length) return NULL;
    } else {
      if (!(desc.flags & VHOST_DESC_NEXT)) return NULL;
      index = desc.extra;
      if (index >= length) return "an indirect table goes on beyond its end";
    }
  }
}

/* Takes bytes off the front of the readable segments. The header is copied: it is looked at in the copy only. */
static void take_header(struct vhost_chain *chain, uint8_t *header) {
  uint32_t whole = 0;
  for (size_t done = 0; done < HEADER_BYTES;) {
    struct vhost_segment *segment = &chain->segments[whole];
    const size_t some = segment->length < HEADER_BYTES - done ? segment->length : HEADER_BYTES - done;
    for (size_t index = 0; index < some; index++) header[done + index] = ((volatile uint8_t *)segment->bytes)[index];
    done += some;
    segment->bytes += some;
    segment->length -= some;
    if (segment->length == 0) whole++;
  }
  /* Emptied ones stay, in front, for the sake of their references. */
}

const char *vhost_chain_finish(struct vhost_chain *chain) {
  uint8_t header[HEADER_BYTES];
  if (chain->out_length < HEADER_BYTES) return "a request has no whole header";
  if (chain->in_length < 1) return "a request has no room for its status";
  take_header(chain, header);
  memcpy(&chain->type, header, sizeof chain->type);
  memcpy(&chain->sector, header + 8, sizeof chain->sector);
  chain->out_length -= HEADER_BYTES;
  chain->in_length -= 1;
  struct vhost_segment *last = &chain->segments[chain->count - 1];
  last->length -= 1;
  chain->status = last->bytes + last->length;
  chain->status_region = last->region;
  return NULL;
}

void vhost_chain_release(struct vhost_chain *chain, struct vhost_memory *memory) {
  for (uint32_t index = 0; index < chain->count; index++) vhost_memory_release(memory, chain->segments[index].region);
  chain->count = chain->readable = 0;
  chain->status = NULL;
  if (chain->room <= SEGMENTS_KEPT) return;
  free(chain->segments);
  chain->segments = NULL;
  chain->room = 0;
}

struct vhost_segment *vhost_chain_data(struct vhost_chain *chain, bool readable, uint32_t *count) {
  uint32_t first = readable ? 0 : chain->readable, end = readable ? chain->readable : chain->count;
  while (first < end && chain->segments[first].length == 0) first++;
  if (end > first && chain->segments[end - 1].length == 0) end--;
  *count = end - first;
  return chain->segments + first;
}
