/* What each kind of operation touches of its buffer. Law: no operation is begun that would touch a byte beyond it. */
#ifndef CANDOR_IO_ROOM_H
#define CANDOR_IO_ROOM_H

#include <stdbool.h>

#include "io-ops.h"
#include "napi-door.h"

/* Whether the buffer holds what this kind of operation will touch. */
static inline bool room_for(const struct door_range *range, int kind, int flags) {
  switch (kind) {
    case IO_READ:
    case IO_WRITE:
    case IO_WRITE_DURABLE: return range->bytes != NULL && range->length <= range->room;
    case IO_EXTENTS: return range->bytes != NULL && flags > 0 && range->room >= 8 * (1 + 2 * (int64_t)flags);
    case IO_READ_SPARSE:
      return range->bytes != NULL && flags > 1 && ((uintptr_t)range->bytes & 7) == 0 &&
             range->room >= IO_RUNS_AT(range->length) + 8 * (1 + 2 * (int64_t)flags);
    case IO_SPACE: return range->bytes != NULL && range->room >= 8 * IO_SPACE_NUMBERS;
    case IO_ALLOCATES: return range->bytes != NULL && flags > 0 && range->room >= 8;
    case IO_SAME_FILE:
    case IO_FLUSH: return range->bytes == NULL || (range->room > 0 && range->bytes[range->room - 1] == 0);
    default: return range->bytes == NULL;
  }
}

#endif
