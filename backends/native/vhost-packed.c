/* The packed ring (virtio 1.2, 2.8). Law: a descriptor is the driver's until its flags say otherwise, and is read once;
 * answers go where our own count of used descriptors says. */
#include "vhost-ring.h"

#define AVAIL (1 << 7)
#define USED (1 << 15)
#define EVENT_ENABLE 0
#define EVENT_DISABLE 1
#define EVENT_DESC 2

static uint8_t *at(const struct vhost_ring *ring, uint16_t index) {
  return ring->descriptors + (size_t)index * VHOST_DESC_BYTES;
}

static uint16_t *flags_of(const struct vhost_ring *ring, uint16_t index) {
  return (uint16_t *)(void *)(at(ring, index) + 14);
}

/* Moves a place on by some descriptors, at most the ring's size. */
static void move(const struct vhost_ring *ring, uint16_t *place, bool *wrap, uint16_t by) {
  const uint32_t on = (uint32_t)*place + by;
  if (on >= ring->size) *wrap = !*wrap;
  *place = (uint16_t)(on >= ring->size ? on - ring->size : on);
}

void vhost_packed_start(struct vhost_ring *ring) {
  struct vhost_log_place place = {ring->used, ring->used_wrap};
  bool found;
  if (!vhost_log_attach_packed(&ring->log, ring->descriptors, &place, &ring->left, &found)) {
    vhost_ring_broke(ring, "the in-flight log contradicts itself, or is for another queue");
    ring->left.count = 0;
    return;
  }
  if (!found) return;
  /* The log knows where the ring stands; a front end whose back-end was killed does not. */
  ring->used = ring->avail = place.used;
  ring->used_wrap = ring->avail_wrap = place.used_wrap;
  uint32_t taken = 0;
  for (uint16_t index = 0; index < ring->left.count; index++) {
    taken += vhost_log_left_packed(&ring->log, ring->left.heads[index].head, ring->descs);
  }
  move(ring, &ring->avail, &ring->avail_wrap, (uint16_t)taken);
}

bool vhost_packed_ready(const struct vhost_ring *ring) {
  const uint16_t flags = __atomic_load_n(flags_of(ring, ring->avail), __ATOMIC_ACQUIRE);
  return ((flags & AVAIL) != 0) == ring->avail_wrap && ((flags & USED) != 0) != ring->avail_wrap;
}

/* Copies the descriptors of the next chain out of the ring: their number, or 0 for one that is too long or has no end. */
static uint16_t fetch(struct vhost_ring *ring) {
  uint16_t index = ring->avail;
  for (uint16_t count = 0; count < ring->size && count < VHOST_CHAIN_MAX; count++) {
    ring->descs[count] = vhost_desc_packed(at(ring, index));
    if (!(ring->descs[count].flags & VHOST_DESC_NEXT)) return (uint16_t)(count + 1);
    index = (uint16_t)(index + 1 == ring->size ? 0 : index + 1);
  }
  return 0;
}

static const char *build(struct vhost_ring *ring, struct vhost_chain *chain, uint16_t count) {
  for (uint16_t index = 0; index < count; index++) {
    const struct vhost_desc *desc = &ring->descs[index];
    const char *broken;
    if (!(desc->flags & VHOST_DESC_INDIRECT)) {
      broken = vhost_chain_add(chain, ring->memory, desc);
    } else {
      if (!ring->indirect) return "an indirect descriptor was not negotiated";
      if (count > 1) return "an indirect descriptor is part of a chain";
      broken = vhost_chain_add_indirect(chain, ring->memory, desc, true);
    }
    if (broken != NULL) return broken;
  }
  return vhost_chain_finish(chain);
}

int vhost_packed_next(struct vhost_ring *ring) {
  int id;
  uint16_t count;
  if (ring->left_at < ring->left.count) {
    id = ring->left.heads[ring->left_at++].head;
    count = vhost_log_left_packed(&ring->log, (uint16_t)id, ring->descs);
  } else {
    if (!vhost_packed_ready(ring)) return VHOST_RING_NONE;
    count = fetch(ring);
    if (count == 0) return vhost_ring_broke(ring, "a chain of descriptors is too long, or a loop");
    id = vhost_log_took_packed(&ring->log, ring->descs, count);
    if (id < 0) return vhost_ring_broke(ring, "more descriptors are given than the ring holds");
    move(ring, &ring->avail, &ring->avail_wrap, count);
  }
  if (ring->chains[id] != NULL) return vhost_ring_broke(ring, "the in-flight log gives an entry to two requests");
  struct vhost_chain *chain = vhost_ring_begin(ring, (uint16_t)id);
  if (chain == NULL) return vhost_ring_broke(ring, "out of memory");
  const char *broken = build(ring, chain, count);
  if (broken != NULL) return vhost_ring_drop(ring, (uint16_t)id, broken);
  chain->ring_descs = count;
  chain->buffer_id = ring->descs[count - 1].extra;
  ring->out += 1;
  return id;
}

void vhost_packed_push(struct vhost_ring *ring, uint16_t id, uint32_t length) {
  const struct vhost_chain *chain = ring->chains[id];
  uint8_t *slot = at(ring, ring->used);
  uint16_t *flags = flags_of(ring, ring->used);
  const uint16_t mine = (uint16_t)((ring->used_wrap ? AVAIL | USED : 0) | VHOST_DESC_WRITE);
  *(guest16 *)(slot + 12) = chain->buffer_id;
  *(guest32 *)(slot + 8) = length;
  move(ring, &ring->used, &ring->used_wrap, chain->ring_descs);
  const struct vhost_log_place place = {ring->used, ring->used_wrap};
  vhost_log_completing_packed(&ring->log, id, place);
  __atomic_store_n(flags, mine, __ATOMIC_RELEASE);
  vhost_log_completed_packed(&ring->log, id, place);
}

bool vhost_packed_wants_call(struct vhost_ring *ring) {
  const uint16_t before = ring->signalled;
  const bool known = ring->signalled_valid;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  const uint16_t now = (uint16_t)(ring->used | (ring->used_wrap ? 0x8000 : 0));
  ring->signalled = now;
  ring->signalled_valid = true;
  if (known && before == now) return false;
  /* Both halves in one read: they are written as one wish. */
  const uint32_t event = *(volatile uint32_t *)(void *)ring->driver;
  const uint16_t flags = event >> 16 & 3;
  if (flags == EVENT_DISABLE) return false;
  if (flags != EVENT_DESC || !ring->event_idx || !known) return true;
  /* Places as running numbers, the event's and the former one's at most a round behind. */
  int place = event & 0x7fff, former = before & 0x7fff;
  if ((event >> 15 & 1) != ring->used_wrap) place -= ring->size;
  if ((before >> 15 != 0) != ring->used_wrap) former -= ring->size;
  return vhost_passed((uint16_t)place, ring->used, (uint16_t)former);
}

static void tell_driver(struct vhost_ring *ring, uint16_t place, uint16_t flags) {
  __atomic_store_n((uint32_t *)(void *)ring->device, (uint32_t)place | (uint32_t)flags << 16, __ATOMIC_RELEASE);
}

void vhost_packed_hush(struct vhost_ring *ring) { tell_driver(ring, 0, EVENT_DISABLE); }

void vhost_packed_listen(struct vhost_ring *ring) {
  const uint16_t place = (uint16_t)(ring->avail | (ring->avail_wrap ? 0x8000 : 0));
  tell_driver(ring, place, ring->event_idx ? EVENT_DESC : EVENT_ENABLE);
}
