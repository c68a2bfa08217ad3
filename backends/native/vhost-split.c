/* The split ring (virtio 1.2, 2.7). Law: an index of the driver is read once and checked; the used index is ours from the
 * start on, whatever the memory says later. */
#include "vhost-ring.h"

#define AVAIL_NO_INTERRUPT 1
#define USED_NO_NOTIFY 1

static uint16_t *field16(uint8_t *area, size_t at) { return (uint16_t *)(void *)(area + at); }

static uint16_t avail_idx(const struct vhost_ring *ring) {
  return __atomic_load_n(field16(ring->driver, 2), __ATOMIC_ACQUIRE);
}

void vhost_split_start(struct vhost_ring *ring) {
  bool found;
  ring->used = __atomic_load_n(field16(ring->device, 2), __ATOMIC_ACQUIRE);
  if (!vhost_log_attach_split(&ring->log, ring->used, &ring->left, &found)) {
    vhost_ring_broke(ring, "the in-flight log contradicts itself, or is for another queue");
  }
  /* The log knows how many were taken out of the ring; a front end whose back-end was killed does not. */
  if (found) ring->avail = (uint16_t)(ring->used + ring->left.count);
  if ((uint16_t)(ring->avail - ring->used) > ring->size) {
    vhost_ring_broke(ring, "more requests than the ring holds are said to be under way");
  }
}

/* Walks the chain that begins at `head`. */
static const char *walk(struct vhost_ring *ring, struct vhost_chain *chain, uint16_t head) {
  uint16_t index = head;
  for (uint16_t count = 0; count < ring->size; count++) {
    const struct vhost_desc desc = vhost_desc_split(ring->descriptors + (size_t)index * VHOST_DESC_BYTES);
    const char *broken;
    if (desc.flags & VHOST_DESC_INDIRECT) {
      if (!ring->indirect) return "an indirect descriptor was not negotiated";
      broken = vhost_chain_add_indirect(chain, ring->memory, &desc, false);
      return broken != NULL ? broken : vhost_chain_finish(chain);
    }
    broken = vhost_chain_add(chain, ring->memory, &desc);
    if (broken != NULL) return broken;
    if (!(desc.flags & VHOST_DESC_NEXT)) return vhost_chain_finish(chain);
    index = desc.extra;
    if (index >= ring->size) return "a chain goes on beyond the table of descriptors";
  }
  return "a chain of descriptors is a loop";
}

int vhost_split_next(struct vhost_ring *ring) {
  uint16_t head;
  const bool again = ring->left_at < ring->left.count;
  if (again) {
    head = ring->left.heads[ring->left_at++].head;
  } else {
    const uint16_t ready = (uint16_t)(avail_idx(ring) - ring->avail);
    if (ready == 0) return VHOST_RING_NONE;
    if (ready > ring->size) return vhost_ring_broke(ring, "the available index leaps");
    head = *(volatile uint16_t *)field16(ring->driver, 4 + 2 * (size_t)(ring->avail & (ring->size - 1)));
    if (head >= ring->size) return vhost_ring_broke(ring, "a head lies beyond the table of descriptors");
    ring->avail += 1;
  }
  if (ring->chains[head] != NULL) return vhost_ring_broke(ring, "a head is given again before it was answered");
  struct vhost_chain *chain = vhost_ring_begin(ring, head);
  if (chain == NULL) return vhost_ring_broke(ring, "out of memory");
  if (!again) vhost_log_took_split(&ring->log, head);
  const char *broken = walk(ring, chain, head);
  if (broken != NULL) return vhost_ring_drop(ring, head, broken);
  ring->out += 1;
  return head;
}

void vhost_split_push(struct vhost_ring *ring, uint16_t id, uint32_t length) {
  uint8_t *element = ring->device + 4 + 8 * (size_t)(ring->used & (ring->size - 1));
  *(guest32 *)element = id;
  *(guest32 *)(element + 4) = length;
  vhost_log_completing_split(&ring->log, id);
  ring->used += 1;
  __atomic_store_n(field16(ring->device, 2), ring->used, __ATOMIC_RELEASE);
  vhost_log_completed_split(&ring->log, id, ring->used);
}

bool vhost_split_wants_call(struct vhost_ring *ring) {
  const uint16_t before = ring->signalled;
  const bool known = ring->signalled_valid;
  /* What was completed is visible before the driver's wish is read. */
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  ring->signalled = ring->used;
  ring->signalled_valid = true;
  if (known && before == ring->used) return false;
  if (!ring->event_idx) return (*(volatile uint16_t *)field16(ring->driver, 0) & AVAIL_NO_INTERRUPT) == 0;
  const uint16_t event = *(volatile uint16_t *)field16(ring->driver, 4 + 2 * (size_t)ring->size);
  return !known || vhost_passed(event, ring->used, before);
}

void vhost_split_hush(struct vhost_ring *ring) {
  if (!ring->event_idx) *(volatile uint16_t *)field16(ring->device, 0) = USED_NO_NOTIFY;
}

void vhost_split_listen(struct vhost_ring *ring) {
  if (ring->event_idx) *(volatile uint16_t *)field16(ring->device, 4 + 8 * (size_t)ring->size) = ring->avail;
  else *(volatile uint16_t *)field16(ring->device, 0) = 0;
}

bool vhost_split_ready(const struct vhost_ring *ring) { return avail_idx(ring) != ring->avail; }
