/* The in-flight log of a split ring, and what both kinds share. Law: the log is written so that it is sound whenever this
 * process dies; the front end could have changed it, so that it is read at the beginning only, and checked. */
#include "vhost-log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LOG_VERSION 1
#define LOG_ALIGNMENT 64

/* QueueRegionSplit and DescStateSplit. */
#define SPLIT_VERSION 8
#define SPLIT_DESC_NUM 10
#define SPLIT_LAST_BATCH 12
#define SPLIT_USED_IDX 14
#define SPLIT_HEADER 16
#define SPLIT_ENTRY 16
#define SPLIT_NEXT 6
#define SPLIT_COUNTER 8
#define PACKED_HEADER 32
#define PACKED_ENTRY 32

#define FIELD16(at) (*(guest16 *)(log->bytes + (at)))

uint64_t vhost_log_bytes(uint16_t size, bool packed) {
  const uint64_t bytes = packed ? PACKED_HEADER + (uint64_t)size * PACKED_ENTRY : SPLIT_HEADER + (uint64_t)size * SPLIT_ENTRY;
  return (bytes + LOG_ALIGNMENT - 1) & ~(uint64_t)(LOG_ALIGNMENT - 1);
}

int vhost_log_open(struct vhost_log *log, int fd, uint64_t offset, uint64_t length, uint16_t size, bool packed,
                   atomic_int *lost) {
  *log = (struct vhost_log){.size = size, .packed = packed};
  if (packed) {
    log->next = calloc(size, sizeof *log->next);
    log->last = calloc(size, sizeof *log->last);
    if (log->next == NULL || log->last == NULL) return ENOMEM;
  }
  if (fd < 0) return 0;
  if (length < vhost_log_bytes(size, packed) || offset % 8 != 0) return ENXIO;
  const int error = vhost_region_map(&log->region, fd, offset, vhost_log_bytes(size, packed), lost);
  if (error == 0) log->bytes = log->region.bytes;
  return error;
}

void vhost_log_close(struct vhost_log *log) {
  if (log->bytes != NULL) vhost_region_unmap(&log->region);
  free(log->next);
  free(log->last);
  *log = (struct vhost_log){0};
}

static int by_counter(const void *one, const void *other) {
  const struct vhost_log_head *a = one, *b = other;
  if (a->counter != b->counter) return a->counter < b->counter ? -1 : 1;
  return a->head < b->head ? -1 : 1;
}

void vhost_log_sort(struct vhost_log_heads *heads) {
  qsort(heads->heads, heads->count, sizeof *heads->heads, by_counter);
}

static uint8_t *entry(struct vhost_log *log, uint16_t head) {
  return log->bytes + SPLIT_HEADER + (size_t)head * SPLIT_ENTRY;
}

static void set_in_flight(struct vhost_log *log, uint16_t head, uint8_t value) {
  __atomic_store_n(entry(log, head), value, __ATOMIC_RELEASE);
}

static void begin_anew(struct vhost_log *log, uint16_t used_idx) {
  memset(log->bytes, 0, vhost_log_bytes(log->size, false));
  FIELD16(SPLIT_DESC_NUM) = log->size;
  FIELD16(SPLIT_USED_IDX) = used_idx;
  __atomic_thread_fence(__ATOMIC_RELEASE);
  FIELD16(SPLIT_VERSION) = LOG_VERSION;
}

bool vhost_log_attach_split(struct vhost_log *log, uint16_t used_idx, struct vhost_log_heads *left, bool *found) {
  left->count = 0;
  *found = false;
  if (log->bytes == NULL) return true;
  const uint16_t version = FIELD16(SPLIT_VERSION);
  *found = version != 0;
  if (version == 0) begin_anew(log, used_idx);
  else if (version != LOG_VERSION || FIELD16(SPLIT_DESC_NUM) != log->size) return false;
  /* The used index moved, but what it completed may still stand in the log. */
  uint16_t head = FIELD16(SPLIT_LAST_BATCH);
  const uint16_t batch = (uint16_t)(used_idx - FIELD16(SPLIT_USED_IDX));
  for (uint16_t done = 0; done < batch && done < log->size; done++) {
    if (head >= log->size) return false;
    set_in_flight(log, head, 0);
    head = *(guest16 *)(entry(log, head) + SPLIT_NEXT);
  }
  FIELD16(SPLIT_USED_IDX) = used_idx;
  for (uint16_t index = 0; index < log->size; index++) {
    if (*(volatile uint8_t *)entry(log, index) != 1) continue;
    const uint64_t counter = *(guest64 *)(entry(log, index) + SPLIT_COUNTER);
    left->heads[left->count++] = (struct vhost_log_head){counter, index};
    if (counter >= log->counter) log->counter = counter + 1;
  }
  vhost_log_sort(left);
  return true;
}

void vhost_log_took_split(struct vhost_log *log, uint16_t head) {
  if (log->bytes == NULL) return;
  *(guest64 *)(entry(log, head) + SPLIT_COUNTER) = log->counter++;
  set_in_flight(log, head, 1);
}

void vhost_log_completing_split(struct vhost_log *log, uint16_t head) {
  if (log->bytes == NULL) return;
  *(guest16 *)(entry(log, head) + SPLIT_NEXT) = FIELD16(SPLIT_LAST_BATCH);
  __atomic_thread_fence(__ATOMIC_RELEASE);
  FIELD16(SPLIT_LAST_BATCH) = head;
}

void vhost_log_completed_split(struct vhost_log *log, uint16_t head, uint16_t used_idx) {
  if (log->bytes == NULL) return;
  set_in_flight(log, head, 0);
  __atomic_thread_fence(__ATOMIC_RELEASE);
  FIELD16(SPLIT_USED_IDX) = used_idx;
}
