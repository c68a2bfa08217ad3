/* The in-flight log of a packed ring. A request that is out has an entry for each of its descriptors, since the ring's own
 * may be written over; free entries are a list. Law: as in vhost-log.c, and the lists that count are our own: the log
 * shows them to who comes after us. */
#include <stdlib.h>
#include <string.h>

#include "vhost-log.h"

#define LOG_VERSION 1

/* QueueRegionPacked and DescStatePacked. */
#define VERSION 8
#define DESC_NUM 10
#define FREE_HEAD 12
#define OLD_FREE_HEAD 14
#define USED_IDX 16
#define OLD_USED_IDX 18
#define USED_WRAP 20
#define OLD_USED_WRAP 21
#define HEADER 32
#define ENTRY 32
#define ENTRY_NEXT 2
#define ENTRY_LAST 4
#define ENTRY_NUM 6
#define ENTRY_COUNTER 8
#define ENTRY_ID 16
#define ENTRY_FLAGS 18
#define ENTRY_LENGTH 20
#define ENTRY_ADDRESS 24

#define RING_AVAIL (1 << 7)
#define RING_USED (1 << 15)

#define FIELD8(at) (*(volatile uint8_t *)(log->bytes + (at)))
#define FIELD16(at) (*(guest16 *)(log->bytes + (at)))
#define IN_ENTRY(index, type, at) (*(type *)(log->bytes + HEADER + (size_t)(index)*ENTRY + (at)))

static void in_order(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

static void set_in_flight(struct vhost_log *log, uint16_t index, uint8_t value) {
  in_order();
  IN_ENTRY(index, volatile uint8_t, 0) = value;
  in_order();
}

static void show_used(struct vhost_log *log, struct vhost_log_place place) {
  FIELD16(USED_IDX) = place.used;
  FIELD8(USED_WRAP) = place.used_wrap;
  in_order();
}

static void settle(struct vhost_log *log, struct vhost_log_place place) {
  in_order();
  FIELD16(OLD_FREE_HEAD) = log->free_head;
  FIELD16(OLD_USED_IDX) = place.used;
  FIELD8(OLD_USED_WRAP) = place.used_wrap;
  in_order();
}

static void begin_anew(struct vhost_log *log, struct vhost_log_place place) {
  for (uint16_t index = 0; index < log->size; index++) log->next[index] = (uint16_t)(index + 1);
  log->free_head = 0;
  if (log->bytes == NULL) return;
  memset(log->bytes, 0, vhost_log_bytes(log->size, true));
  for (uint16_t index = 0; index < log->size; index++) IN_ENTRY(index, guest16, ENTRY_NEXT) = (uint16_t)(index + 1);
  FIELD16(DESC_NUM) = log->size;
  show_used(log, place);
  settle(log, place);
  FIELD16(VERSION) = LOG_VERSION;
}

/* What was under way when the former back-end ended is taken back, unless the driver could already see it. */
static bool roll_back(struct vhost_log *log, const uint8_t *ring, struct vhost_log_place *place) {
  const uint16_t old_used = FIELD16(OLD_USED_IDX), used = FIELD16(USED_IDX);
  const bool old_wrap = (FIELD8(OLD_USED_WRAP) & 1) != 0, wrap = (FIELD8(USED_WRAP) & 1) != 0;
  if (old_used >= log->size || used >= log->size) return false;
  *place = (struct vhost_log_place){old_used, old_wrap};
  log->free_head = FIELD16(OLD_FREE_HEAD);
  if (used != old_used || wrap != old_wrap) {
    const uint16_t flags = vhost_desc_packed(ring + (size_t)old_used * VHOST_DESC_BYTES).flags;
    const bool available = ((flags & RING_AVAIL) != 0) == old_wrap && ((flags & RING_USED) != 0) != old_wrap;
    if (!available) {
      *place = (struct vhost_log_place){used, wrap};
      log->free_head = FIELD16(FREE_HEAD);
    }
  }
  FIELD16(FREE_HEAD) = log->free_head;
  show_used(log, *place);
  settle(log, *place);
  return true;
}

/* Reads the lists, each entry once. Every entry is free or of exactly one request. */
static bool read_lists(struct vhost_log *log, struct vhost_log_heads *left, uint8_t *seen) {
  uint32_t total = 0;
  for (uint16_t index = 0; index < log->size; index++) log->next[index] = IN_ENTRY(index, guest16, ENTRY_NEXT);
  uint16_t spare = log->free_head;
  for (; spare < log->size && !seen[spare]; spare = log->next[spare], total++) {
    seen[spare] = 1;
    set_in_flight(log, spare, 0);
  }
  /* A loop would give an entry to two requests. */
  if (spare < log->size) return false;
  for (uint16_t head = 0; head < log->size; head++) {
    if (seen[head] || IN_ENTRY(head, volatile uint8_t, 0) != 1) continue;
    const uint64_t counter = IN_ENTRY(head, guest64, ENTRY_COUNTER);
    left->heads[left->count++] = (struct vhost_log_head){counter, head};
    if (counter >= log->counter) log->counter = counter + 1;
    uint16_t count = IN_ENTRY(head, guest16, ENTRY_NUM), index = head;
    if (count == 0) return false;
    for (;; index = log->next[index]) {
      if (index >= log->size || seen[index]) return false;
      seen[index] = 1;
      total++;
      if (--count == 0) break;
    }
    log->last[head] = index;
  }
  return total == log->size;
}

bool vhost_log_attach_packed(struct vhost_log *log, const uint8_t *ring, struct vhost_log_place *place,
                             struct vhost_log_heads *left, bool *found) {
  const uint16_t version = log->bytes == NULL ? 0 : FIELD16(VERSION);
  left->count = 0;
  *found = version != 0;
  if (version == 0) {
    begin_anew(log, *place);
    return true;
  }
  if (version != LOG_VERSION || FIELD16(DESC_NUM) != log->size || !roll_back(log, ring, place)) return false;
  uint8_t *seen = calloc(log->size, 1);
  const bool sound = seen != NULL && read_lists(log, left, seen);
  free(seen);
  vhost_log_sort(left);
  return sound;
}

int vhost_log_took_packed(struct vhost_log *log, const struct vhost_desc *descs, uint16_t count) {
  const uint16_t head = log->free_head;
  uint16_t last = head;
  for (uint16_t index = 0, at = head; index < count; index++, at = log->next[at]) {
    if (at >= log->size) return -1;
    last = at;
  }
  log->free_head = log->next[last];
  log->last[head] = last;
  if (log->bytes == NULL) return head;
  IN_ENTRY(head, guest16, ENTRY_NUM) = count;
  IN_ENTRY(head, guest16, ENTRY_LAST) = last;
  IN_ENTRY(head, guest64, ENTRY_COUNTER) = log->counter++;
  for (uint16_t index = 0, at = head; index < count; index++, at = log->next[at]) {
    IN_ENTRY(at, guest64, ENTRY_ADDRESS) = descs[index].address;
    IN_ENTRY(at, guest32, ENTRY_LENGTH) = descs[index].length;
    IN_ENTRY(at, guest16, ENTRY_FLAGS) = descs[index].flags;
    IN_ENTRY(at, guest16, ENTRY_ID) = descs[index].extra;
  }
  set_in_flight(log, head, 1);
  FIELD16(FREE_HEAD) = log->free_head;
  in_order();
  FIELD16(OLD_FREE_HEAD) = log->free_head;
  return head;
}

uint16_t vhost_log_left_packed(struct vhost_log *log, uint16_t head, struct vhost_desc *descs) {
  uint16_t count = 0;
  for (uint16_t at = head; at < log->size && count < log->size; at = log->next[at]) {
    descs[count++] = (struct vhost_desc){IN_ENTRY(at, guest64, ENTRY_ADDRESS), IN_ENTRY(at, guest32, ENTRY_LENGTH),
                                         IN_ENTRY(at, guest16, ENTRY_FLAGS), IN_ENTRY(at, guest16, ENTRY_ID)};
    if (at == log->last[head]) return count;
  }
  return 0;
}

void vhost_log_completing_packed(struct vhost_log *log, uint16_t head, struct vhost_log_place place) {
  const uint16_t last = log->last[head];
  log->next[last] = log->free_head;
  log->free_head = head;
  if (log->bytes == NULL) return;
  IN_ENTRY(last, guest16, ENTRY_NEXT) = log->next[last];
  in_order();
  FIELD16(FREE_HEAD) = head;
  show_used(log, place);
}

void vhost_log_completed_packed(struct vhost_log *log, uint16_t head, struct vhost_log_place place) {
  if (log->bytes == NULL) return;
  set_in_flight(log, head, 0);
  settle(log, place);
}
