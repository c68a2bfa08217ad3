/* A virtqueue in the event loop of one thread.
 *
 *   kick -> turn: hush, then { read up to a batch -> requests(count) } until empty or enough -> listen -> notify
 *                                                      complete(id) … notify -> call
 *
 * Laws: one turn reads a batch at most, and ends in time, so that a guest does not keep the thread to itself; a queue that broke tells it once
 * and reads nothing more. Nothing here is shared between threads. */
#include "vhost-queue.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "vhost-data.h"

/* How long a turn goes on: other rings, clients and timers have theirs then. */
#define TURN_NS 500000

/* Descriptors that one turn reads: long chains count for what they are. */
#define DESCS_TURN_MAX 4096

/* Data of answers that are kept back for the end of the batch: with more the guest is told at once, and works on them while
 * we move the next. */
#define UNTOLD_BYTES_MAX (128 * 1024)

/* The queues of this thread. */
static _Thread_local struct vhost_queue *queues;

static void tell(struct vhost_queue *queue, uint32_t count, const char *reason) {
  napi_env env = queue->told.env;
  napi_handle_scope scope;
  napi_value words[2];
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_create_uint32(env, count, &words[0]);
  if (reason == NULL) napi_get_undefined(env, &words[1]);
  else napi_create_string_utf8(env, reason, NAPI_AUTO_LENGTH, &words[1]);
  door_callback_call(&queue->told, 2, words);
  napi_close_handle_scope(env, scope);
}

static void tell_broken(struct vhost_queue *queue) {
  if (queue->ring.broken == NULL || queue->told_broken || queue->closing) return;
  queue->told_broken = true;
  uv_idle_stop(&queue->idle);
  if (queue->kick != NULL) vhost_kick_close(queue->kick);
  queue->kick = NULL;
  tell(queue, 0, queue->ring.broken);
}

static bool readable(const struct vhost_queue *queue) {
  const bool wanted = queue->kick != NULL || queue->asked;
  return wanted && queue->ring.running && queue->ring.broken == NULL && !queue->closing;
}

static void on_idle(uv_idle_t *handle);

/* Reads what is there into the table, and tells of it: how many. */
static uint32_t take_batch(struct vhost_queue *queue) {
  const uint32_t limit = VHOST_BATCH_MAX - queue->turn_requests;
  uint32_t count = 0;
  while (count < limit && queue->turn_descs < DESCS_TURN_MAX && queue->ring.out < queue->requests_max) {
    const int id = vhost_ring_next(&queue->ring);
    if (id < 0) break;
    queue->turn_descs += queue->ring.chains[id]->descs;
    vhost_data_describe(queue->ring.chains[id], (uint16_t)id, queue->table + (size_t)count++ * VHOST_REQUEST_WORDS);
  }
  queue->turn_requests += count;
  if (count > 0) tell(queue, count, NULL);
  return count;
}

static bool turn_over(const struct vhost_queue *queue) {
  if (queue->turn_requests == VHOST_BATCH_MAX || queue->turn_descs >= DESCS_TURN_MAX) return true;
  return uv_hrtime() >= queue->turn_end;
}

static void read_ring(struct vhost_queue *queue) {
  queue->turn_requests = queue->turn_descs = 0;
  queue->turn_end = uv_hrtime() + TURN_NS;
  if (readable(queue)) vhost_ring_hush(&queue->ring);
  while (readable(queue)) {
    if (turn_over(queue)) {
      uv_idle_start(&queue->idle, on_idle);
      return;
    }
    const uint32_t count = take_batch(queue);
    if (count > 0 || !readable(queue)) continue;
    uv_idle_stop(&queue->idle);
    queue->asked = false;
    /* Full: `complete` wakes us. Empty: the kick does, unless something came while we asked for it. */
    if (queue->ring.out >= queue->requests_max) return;
    if (!vhost_ring_listen(&queue->ring)) break;
    vhost_ring_hush(&queue->ring);
  }
  uv_idle_stop(&queue->idle);
  tell_broken(queue);
}

static void turn(struct vhost_queue *queue) {
  read_ring(queue);
  /* Nobody holds an answer back beyond a turn. */
  if (queue->untold && !queue->closing) vhost_queue_notify(queue);
}

static void on_idle(uv_idle_t *handle) { turn(handle->data); }

static void on_kick(void *data) { turn(data); }

static void wake(struct vhost_queue *queue) {
  if (queue->started && !queue->closing && !queue->told_broken) uv_idle_start(&queue->idle, on_idle);
}

void vhost_queue_poll(struct vhost_queue *queue) {
  queue->asked = true;
  wake(queue);
}

void vhost_queue_start(struct vhost_queue *queue) {
  if (queue->started || queue->closing) return;
  queue->started = true;
  vhost_ring_start(&queue->ring);
  vhost_queue_poll(queue);
}

void vhost_queue_complete(struct vhost_queue *queue, uint16_t id, uint8_t status, uint32_t written) {
  const bool full = queue->ring.out >= queue->requests_max;
  queue->untold = true;
  queue->untold_bytes += queue->ring.chains[id]->out_length + queue->ring.chains[id]->in_length;
  queue->untold_descs += queue->ring.chains[id]->ring_descs;
  vhost_ring_complete(&queue->ring, id, status, written);
  /* Without a kick the ring is read when it is asked for, and not otherwise. */
  if ((full && queue->kick != NULL) || queue->ring.broken != NULL) wake(queue);
  /* What a driver wishes to be told of is a place in a packed ring: it is looked for before the ring comes round again. */
  if (queue->untold_bytes >= UNTOLD_BYTES_MAX || queue->untold_descs >= queue->ring.size) vhost_queue_notify(queue);
}

void vhost_queue_notify(struct vhost_queue *queue) {
  queue->untold = false;
  queue->untold_bytes = 0;
  queue->untold_descs = 0;
  if (vhost_ring_wants_call(&queue->ring) && queue->call >= 0) vhost_event_signal(queue->call);
}

/* Whether the event loop is waited for: by what storage has, of any queue and `ours` too, or by another queue, whose driver
 * is to be told of answers at the end of this turn, or has given it something. */
static bool loop_awaited(const struct vhost_queue *ours) {
  for (const struct vhost_queue *queue = queues; queue != NULL; queue = queue->next) {
    if (queue->ring.out > 0) return true;
    if (queue != ours && (queue->untold || (readable(queue) && vhost_ring_ready(&queue->ring)))) return true;
  }
  return false;
}

bool vhost_queue_await(struct vhost_queue *queue, uint64_t ns, bool hold) {
  const uint64_t end = uv_hrtime() + ns;
  if (hold && !queue->untold) return false;
  while (readable(queue) && !loop_awaited(queue)) {
    if (vhost_ring_ready(&queue->ring)) return true;
    if (uv_hrtime() >= end || turn_over(queue)) return false;
    sched_yield();
  }
  return false;
}

static void freed(struct vhost_queue *queue) {
  if (--queue->handles > 0) return;
  napi_delete_reference(queue->told.env, queue->table_kept);
  door_callback_close(&queue->told);
  napi_remove_async_cleanup_hook(queue->cleanup);
  free(queue);
}

static void on_idle_closed(uv_handle_t *handle) { freed(handle->data); }

static void on_kick_closed(void *data) { freed(data); }

int vhost_queue_set_kick(struct vhost_queue *queue, int fd) {
  struct vhost_kick *kick = NULL;
  if (queue->closing || queue->told_broken) return 0;
  if (fd >= 0) {
    const int copy = vhost_event_take(fd);
    if (copy < 0) return -copy;
    kick = vhost_kick_open(queue->idle.loop, copy, queue, on_kick, on_kick_closed);
    if (kick == NULL) {
      close(copy);
      return EBADF;
    }
    queue->handles += 1;
  }
  if (queue->kick != NULL) vhost_kick_close(queue->kick);
  queue->kick = kick;
  /* The driver may have kicked the former one, or kicked before there was any. */
  queue->asked = false;
  if (kick != NULL) wake(queue);
  return 0;
}

int vhost_queue_set_call(struct vhost_queue *queue, int fd) {
  int copy = -1;
  if (queue->closing) return 0;
  if (fd >= 0) {
    copy = vhost_event_take(fd);
    if (copy < 0) return -copy;
  }
  if (queue->call >= 0) close(queue->call);
  queue->call = copy;
  if (copy >= 0) vhost_event_signal(copy);
  return 0;
}

int vhost_queue_init(struct vhost_queue *queue, uv_loop_t *loop) {
  const int error = uv_idle_init(loop, &queue->idle);
  if (error != 0) return -error;
  queue->idle.data = queue;
  queue->handles = 1;
  queue->call = -1;
  queue->next = queues;
  queues = queue;
  return 0;
}

uint32_t vhost_queue_stop(struct vhost_queue *queue) {
  if (!queue->closing) uv_idle_stop(&queue->idle);
  queue->ring.running = false;
  return vhost_ring_base(&queue->ring);
}

static void forget(const struct vhost_queue *queue) {
  struct vhost_queue **link = &queues;
  while (*link != NULL && *link != queue) link = &(*link)->next;
  if (*link != NULL) *link = queue->next;
}

void vhost_queue_close(struct vhost_queue *queue) {
  if (queue->closing) return;
  queue->closing = true;
  forget(queue);
  if (queue->kick != NULL) vhost_kick_close(queue->kick);
  queue->kick = NULL;
  if (queue->call >= 0) close(queue->call);
  queue->call = -1;
  vhost_ring_close(&queue->ring);
  uv_close((uv_handle_t *)&queue->idle, on_idle_closed);
}
