/* The queue of one device in one JavaScript thread. What a turn of the event loop submits is given away at its end,
 * in one call; what was completed is told in one call.
 *
 *   submit() -> turn -+-> ring    -> poll  -+-> on_completions(count)
 *       (end of turn) +-> threads -> async -+
 *
 * The JavaScript side keeps every buffer alive until its ticket is completed. Law: an environment that ends waits until
 * neither kernel nor thread holds any of them. Nothing here is shared between environments. */
#include "io-queue.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <uv.h>

#include "io-ring.h"
#include "io-room.h"
#include "io-threads.h"
#include "napi-door.h"

#define COMPLETIONS_BATCH 256
/* A turn that submits more than this gives them away before its end, so that storage begins. */
#define TURN_JOBS_MAX 32

struct io_queue {
  napi_env env;
  uv_async_t async;     /* threads have completions */
  uv_poll_t poll;       /* the ring has */
  uv_check_t check;     /* a turn ends: after sockets were read … */
  uv_prepare_t prepare; /* … and after timers and immediates */
  int handles;
  struct io_threads *threads;
  struct io_ring *ring; /* NULL: threads do everything */
  struct io_list turn;  /* for the threads */
  struct io_list done;
  struct io_job *spare;
  uint32_t pending; /* submitted and not yet told */
  napi_ref results; /* Int32Array of COMPLETIONS_BATCH pairs (ticket, outcome) */
  int32_t *pairs;
  napi_ref callback;
  napi_async_context context;
  napi_async_cleanup_hook_handle cleanup;
};

static void tell(struct io_queue *queue, int count) {
  napi_env env = queue->env;
  napi_value global, callback, argument;
  if (napi_get_global(env, &global) != napi_ok) return;
  if (napi_get_reference_value(env, queue->callback, &callback) != napi_ok) return;
  if (napi_create_int32(env, count, &argument) != napi_ok) return;
  if (napi_make_callback(env, queue->context, global, callback, 1, &argument, NULL) == napi_pending_exception) {
    napi_value error;
    if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
  }
}

static void tell_all(struct io_queue *queue) {
  napi_handle_scope scope;
  if (queue->done.first == NULL || napi_open_handle_scope(queue->env, &scope) != napi_ok) return;
  while (queue->done.first != NULL) {
    int count = 0;
    for (struct io_job *job; count < COMPLETIONS_BATCH && (job = io_list_take(&queue->done)) != NULL; count++) {
      queue->pairs[2 * count] = (int32_t)job->ticket;
      queue->pairs[2 * count + 1] = job->outcome;
      job->next = queue->spare;
      queue->spare = job;
    }
    queue->pending -= (uint32_t)count;
    if (queue->pending == 0) uv_unref((uv_handle_t *)&queue->async);
    tell(queue, count);
  }
  napi_close_handle_scope(queue->env, scope);
}

/* Gives away what was submitted since the last time. */
static void give_away(struct io_queue *queue) {
  if (queue->ring != NULL && io_ring_queued(queue->ring) > 0) io_ring_submit(queue->ring, &queue->turn);
  const int error = io_threads_push(queue->threads, &queue->turn);
  if (error == 0) return;
  /* Not one thread can be had: a request that nobody does is told of like any other error. */
  for (struct io_job *job; (job = io_list_take(&queue->turn)) != NULL;) {
    job->outcome = error;
    io_list_append(&queue->done, job);
  }
}

static void end_turn(struct io_queue *queue) {
  give_away(queue);
  tell_all(queue);
}

static void on_check(uv_check_t *handle) { end_turn(handle->data); }

static void on_prepare(uv_prepare_t *handle) { end_turn(handle->data); }

static void on_async(uv_async_t *handle) {
  struct io_queue *queue = handle->data;
  io_threads_take(queue->threads, &queue->done);
  tell_all(queue);
}

static void on_poll(uv_poll_t *handle, int status, int events) {
  struct io_queue *queue = handle->data;
  (void)status, (void)events;
  io_ring_take(queue->ring, &queue->done, &queue->turn);
  tell_all(queue);
}

static void wake(void *argument) { uv_async_send(&((struct io_queue *)argument)->async); }

static void free_jobs(struct io_job *job) {
  while (job != NULL) {
    struct io_job *next = job->next;
    free(job);
    job = next;
  }
}

static void on_closed(uv_handle_t *handle) {
  struct io_queue *queue = handle->data;
  queue->handles -= 1;
  if (queue->handles > 0) return;
  if (queue->ring != NULL) io_ring_free(queue->ring);
  free_jobs(queue->spare);
  free_jobs(queue->turn.first);
  free_jobs(queue->done.first);
  napi_remove_async_cleanup_hook(queue->cleanup);
  free(queue);
}

/* The environment ends: its buffers go as soon as this has run, so it waits for whoever is at work on them. */
static void on_cleanup(napi_async_cleanup_hook_handle handle, void *argument) {
  struct io_queue *queue = argument;
  (void)handle;
  io_threads_end(queue->threads);
  if (queue->ring != NULL) io_ring_drain(queue->ring);
  uv_close((uv_handle_t *)&queue->async, on_closed);
  uv_close((uv_handle_t *)&queue->check, on_closed);
  uv_close((uv_handle_t *)&queue->prepare, on_closed);
  if (queue->ring != NULL) uv_close((uv_handle_t *)&queue->poll, on_closed);
}

/* None of the handles keeps the loop alive but `async`, while something is pending. */
static int open_handles(struct io_queue *queue, uv_loop_t *loop) {
  int error = uv_async_init(loop, &queue->async, on_async);
  if (error != 0) return error;
  uv_check_init(loop, &queue->check);
  uv_check_start(&queue->check, on_check);
  uv_prepare_init(loop, &queue->prepare);
  uv_prepare_start(&queue->prepare, on_prepare);
  queue->async.data = queue->check.data = queue->prepare.data = queue->poll.data = queue;
  queue->handles = 3;
  uv_unref((uv_handle_t *)&queue->async);
  uv_unref((uv_handle_t *)&queue->check);
  uv_unref((uv_handle_t *)&queue->prepare);
  if (queue->ring == NULL) return 0;
  error = uv_poll_init(loop, &queue->poll, io_ring_fd(queue->ring));
  if (error == 0) error = uv_poll_start(&queue->poll, UV_READABLE, on_poll);
  if (error == 0) {
    uv_unref((uv_handle_t *)&queue->poll);
    queue->handles += 1;
    return 0;
  }
  /* A loop that cannot watch a ring has none. */
  io_ring_free(queue->ring);
  queue->ring = NULL;
  return 0;
}

/* createQueue(threadsMax, ring 0|1, results: Int32Array, onCompletions(count)) -> external. Where no ring can be made,
 * threads do its work. */
napi_value io_queue_create(napi_env env, napi_callback_info info) {
  napi_value arguments[4], name, external;
  size_t count = 4, length;
  int32_t threads_max, with_ring;
  void *pairs;
  napi_typedarray_type type;
  uv_loop_t *loop;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, arguments[0], &threads_max));
  DOOR_OK(napi_get_value_int32(env, arguments[1], &with_ring));
  DOOR_OK(napi_get_typedarray_info(env, arguments[2], &type, &length, &pairs, NULL, NULL));
  if (count != 4 || type != napi_int32_array || length < 2 * COMPLETIONS_BATCH || threads_max < 1) {
    return door_throw(env, "createQueue(threadsMax, ring, results: Int32Array of 512, onCompletions)");
  }
  DOOR_OK(napi_get_uv_event_loop(env, &loop));
  struct io_queue *queue = calloc(1, sizeof *queue);
  if (queue == NULL) return door_throw(env, "out of memory");
  int error;
  queue->env = env;
  queue->pairs = pairs;
  queue->threads = io_threads_new(threads_max, wake, queue);
  queue->ring = with_ring ? io_ring_new(&error) : NULL;
  if (queue->threads == NULL || open_handles(queue, loop) != 0) return door_throw(env, "out of memory or descriptors");
  DOOR_OK(napi_create_reference(env, arguments[2], 1, &queue->results));
  DOOR_OK(napi_create_reference(env, arguments[3], 1, &queue->callback));
  DOOR_OK(napi_create_string_utf8(env, "candor-io", NAPI_AUTO_LENGTH, &name));
  DOOR_OK(napi_async_init(env, NULL, name, &queue->context));
  DOOR_OK(napi_add_async_cleanup_hook(env, on_cleanup, queue, &queue->cleanup));
  DOOR_OK(napi_create_external(env, queue, NULL, NULL, &external));
  return external;
}

static struct io_job *new_job(struct io_queue *queue) {
  struct io_job *job = queue->spare;
  if (job == NULL) return calloc(1, sizeof *job);
  queue->spare = job->next;
  return job;
}

static void enqueue(struct io_queue *queue, struct io_job *job) {
  const bool rings = queue->ring != NULL && job->op.kind == IO_READ && (job->op.flags & IO_FLAG_RING);
  if (rings && job->op.length > 0) io_ring_push(queue->ring, job);
  else io_list_append(&queue->turn, job);
  const int waiting = queue->turn.count + (queue->ring == NULL ? 0 : io_ring_queued(queue->ring));
  if (waiting % TURN_JOBS_MAX == 0) give_away(queue);
}

/* submit(queue, ticket, kind, flags, fd, bytes | null, start, length, offset) -> 0 or errno; the ticket comes back
 * through onCompletions exactly once after 0, and never after an errno. */
napi_value io_queue_submit(napi_env env, napi_callback_info info) {
  napi_value arguments[9];
  size_t count = 9;
  struct io_queue *queue;
  int32_t kind, flags;
  uint32_t ticket;
  struct door_range range;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_value_external(env, arguments[0], (void **)&queue));
  DOOR_OK(napi_get_value_uint32(env, arguments[1], &ticket));
  DOOR_OK(napi_get_value_int32(env, arguments[2], &kind));
  DOOR_OK(napi_get_value_int32(env, arguments[3], &flags));
  if (count != 9 || !door_range(env, arguments + 4, &range) || !room_for(&range, kind, flags)) {
    return door_throw(env, "submit: the range is not sound");
  }
  struct io_job *job = new_job(queue);
  if (job == NULL) return door_int(env, ENOMEM);
  job->op = (struct io_op){kind, flags, range.fd, range.bytes, range.length, range.offset};
  job->ticket = ticket;
  job->outcome = 0;
  if (queue->pending++ == 0) uv_ref((uv_handle_t *)&queue->async);
  enqueue(queue, job);
  return door_int(env, 0);
}

/* probeRing() -> 0, or the errno for which there is no ring here. */
napi_value io_queue_probe_ring(napi_env env, napi_callback_info info) {
  (void)info;
  return door_int(env, io_ring_probe());
}
