/* A virtqueue in the event loop of one thread. */
#ifndef CANDOR_VHOST_QUEUE_H
#define CANDOR_VHOST_QUEUE_H

#include <node_api.h>
#include <stdbool.h>
#include <uv.h>

#include "door-callback.h"
#include "vhost-events.h"
#include "vhost-ring.h"

#define VHOST_BATCH_MAX 128

struct vhost_queue {
  struct vhost_ring ring;
  uv_idle_t idle; /* on while there is more to read than one turn reads */
  struct vhost_kick *kick;
  int call; /* -1: none */
  int handles;
  bool started, told_broken, closing;
  bool asked; /* to read the ring once without a kick */
  uint64_t turn_end; /* on uv_hrtime's clock */
  uint32_t turn_requests, turn_descs;
  uint16_t requests_max;
  struct vhost_queue *next; /* of this thread */
  bool untold;           /* there are answers that the driver was not told of */
  uint64_t untold_bytes; /* of them */
  uint32_t untold_descs; /* of the ring, as far as they have been used by them */
  double *table;
  napi_ref table_kept;
  struct door_callback told; /* (count, reason) */
  napi_async_cleanup_hook_handle cleanup;
};

/* 0 or an errno. After 0 the queue is freed some time after vhost_queue_close. */
int vhost_queue_init(struct vhost_queue *queue, uv_loop_t *loop);
void vhost_queue_start(struct vhost_queue *queue);
/* Looks at the ring in the next turn, kick or not. */
void vhost_queue_poll(struct vhost_queue *queue);
/* Within `told`: waits in place for so long at most, and lets others run; true when the ring has something more to be read.
 * With `hold` only while there are answers that the driver was not told of.
 * Not beyond the turn, nor while any ring of the thread has requests out, or another has something to read or to tell its driver. */
bool vhost_queue_await(struct vhost_queue *queue, uint64_t ns, bool hold);
void vhost_queue_complete(struct vhost_queue *queue, uint16_t id, uint8_t status, uint32_t written);
void vhost_queue_notify(struct vhost_queue *queue);
/* 0 or an errno; fd < 0: none. */
int vhost_queue_set_kick(struct vhost_queue *queue, int fd);
int vhost_queue_set_call(struct vhost_queue *queue, int fd);
uint32_t vhost_queue_stop(struct vhost_queue *queue);
void vhost_queue_close(struct vhost_queue *queue);

napi_status vhost_queue_define(napi_env env, napi_value exports);

#endif
