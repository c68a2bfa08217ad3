/* The in-flight log of one queue (docs/interop/vhost-user.rst, "Inflight I/O tracking"): what a back-end that follows us
 * has to do again. */
#ifndef CANDOR_VHOST_LOG_H
#define CANDOR_VHOST_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vhost-chain.h"
#include "vhost-region.h"

struct vhost_log {
  uint8_t *bytes; /* NULL: no log is kept, and all of this only allots ids */
  struct vhost_region region;
  uint16_t size;
  bool packed;
  uint64_t counter;
  /* Packed: an entry for each descriptor that is out, in lists. The shared log is written from these and not read again. */
  uint16_t *next, *last;
  uint16_t free_head;
};

/* A head with its place in the order of arrival. */
struct vhost_log_head {
  uint64_t counter;
  uint16_t head;
};

struct vhost_log_heads {
  struct vhost_log_head *heads; /* room for the queue's size */
  uint16_t count;
};

/* Where a packed ring stands. */
struct vhost_log_place {
  uint16_t used;
  bool used_wrap;
};

uint64_t vhost_log_bytes(uint16_t size, bool packed);
/* fd < 0: no log is kept. 0 or an errno. */
int vhost_log_open(struct vhost_log *log, int fd, uint64_t offset, uint64_t length, uint16_t size, bool packed,
                   atomic_int *lost);
void vhost_log_close(struct vhost_log *log);
void vhost_log_sort(struct vhost_log_heads *heads);

/* Takes over what a former back-end left, or begins anew. False: the log contradicts itself, or is for another queue.
 * `found` tells whether there was a log. */
bool vhost_log_attach_split(struct vhost_log *log, uint16_t used_idx, struct vhost_log_heads *left, bool *found);
void vhost_log_took_split(struct vhost_log *log, uint16_t head);
/* Around the store that makes the used index visible. */
void vhost_log_completing_split(struct vhost_log *log, uint16_t head);
void vhost_log_completed_split(struct vhost_log *log, uint16_t head, uint16_t used_idx);

/* The same for a packed ring, whose place the log itself knows best; `ring` is the ring's own descriptors. */
bool vhost_log_attach_packed(struct vhost_log *log, const uint8_t *ring, struct vhost_log_place *place,
                             struct vhost_log_heads *left, bool *found);
/* The id of a request of `count` descriptors; -1 when so many cannot be out. */
int vhost_log_took_packed(struct vhost_log *log, const struct vhost_desc *descs, uint16_t count);
/* The descriptors of a request that was left: their number, 0 when that is not sound. */
uint16_t vhost_log_left_packed(struct vhost_log *log, uint16_t head, struct vhost_desc *descs);
void vhost_log_completing_packed(struct vhost_log *log, uint16_t head, struct vhost_log_place place);
void vhost_log_completed_packed(struct vhost_log *log, uint16_t head, struct vhost_log_place place);

#endif
