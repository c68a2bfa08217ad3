/* Threads that run what would block. They start as the queue grows, never more than the bound, and answer in
 * batches: one wake-up of the JavaScript thread for all that was completed since the last.
 *
 *   submit() -> queue -> thread: io_run() -> done list -> (one tsfn call) -> on_completions(count)
 *
 * The JavaScript side keeps every buffer alive until its ticket is completed; nothing here owns memory of V8's. */
#include "io-pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "io-ops.h"
#include "napi-door.h"

#define COMPLETIONS_BATCH 256
#define THREAD_STACK_BYTES (128 * 1024)

struct job {
  struct io_op op;
  uint32_t ticket;
  int outcome;
  struct job *next;
};

struct pool {
  pthread_mutex_t lock;
  pthread_cond_t work;
  struct job *first, *last; /* the queue */
  struct job *done;         /* completed, newest first */
  struct job *spare;        /* recycled jobs: only the JavaScript thread touches these */
  int threads, threads_max, idle, queued;
  uint32_t pending; /* submitted and not yet told: only the JavaScript thread touches it */
  bool scheduled, closing;
  napi_threadsafe_function wake;
  napi_ref results; /* Int32Array of COMPLETIONS_BATCH pairs (ticket, outcome) */
  int32_t *pairs;
};

static void complete(struct pool *pool, struct job *job) {
  pthread_mutex_lock(&pool->lock);
  job->next = pool->done;
  pool->done = job;
  /* Under the lock: on_cleanup takes it before the function behind `wake` can go away. */
  if (!pool->scheduled && !pool->closing) napi_call_threadsafe_function(pool->wake, NULL, napi_tsfn_nonblocking);
  pool->scheduled = true;
  pthread_mutex_unlock(&pool->lock);
}

static void *run_thread(void *argument) {
  struct pool *pool = argument;
  pthread_mutex_lock(&pool->lock);
  for (;;) {
    while (pool->first == NULL && !pool->closing) {
      pool->idle += 1;
      pthread_cond_wait(&pool->work, &pool->lock);
      pool->idle -= 1;
    }
    if (pool->closing) break;
    struct job *job = pool->first;
    pool->first = job->next;
    pool->queued -= 1;
    pthread_mutex_unlock(&pool->lock);
    job->outcome = io_run(&job->op);
    complete(pool, job);
    pthread_mutex_lock(&pool->lock);
  }
  pthread_mutex_unlock(&pool->lock);
  return NULL;
}

/* Called with the lock held. Returns an errno when there is no thread at all to do the work. */
static int start_thread(struct pool *pool) {
  pthread_attr_t attributes;
  pthread_t thread;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES);
  const int error = pthread_create(&thread, &attributes, run_thread, pool);
  pthread_attr_destroy(&attributes);
  if (error == 0) pool->threads += 1;
  return pool->threads > 0 ? 0 : error;
}

/* Reverses the done list, so that completions are told in the order in which they came. */
static struct job *take_done(struct pool *pool) {
  struct job *done, *ordered = NULL;
  pthread_mutex_lock(&pool->lock);
  done = pool->done;
  pool->done = NULL;
  pool->scheduled = false;
  pthread_mutex_unlock(&pool->lock);
  while (done != NULL) {
    struct job *next = done->next;
    done->next = ordered;
    ordered = done;
    done = next;
  }
  return ordered;
}

static void tell(napi_env env, napi_value callback, int count) {
  napi_value receiver, argument;
  napi_get_undefined(env, &receiver);
  napi_create_int32(env, count, &argument);
  if (napi_call_function(env, receiver, callback, 1, &argument, NULL) == napi_pending_exception) {
    napi_value error;
    napi_get_and_clear_last_exception(env, &error);
    napi_fatal_exception(env, error);
  }
}

static void on_wake(napi_env env, napi_value callback, void *context, void *data) {
  struct pool *pool = context;
  (void)data;
  if (env == NULL) return;
  struct job *job = take_done(pool);
  while (job != NULL) {
    int count = 0;
    while (job != NULL && count < COMPLETIONS_BATCH) {
      struct job *next = job->next;
      pool->pairs[2 * count] = (int32_t)job->ticket;
      pool->pairs[2 * count + 1] = job->outcome;
      job->next = pool->spare;
      pool->spare = job;
      job = next;
      count += 1;
    }
    pool->pending -= (uint32_t)count;
    if (pool->pending == 0) napi_unref_threadsafe_function(env, pool->wake);
    tell(env, callback, count);
  }
}

/* The environment ends: threads that wait go home; one that the kernel holds dies with the process. */
static void on_cleanup(void *argument) {
  struct pool *pool = argument;
  pthread_mutex_lock(&pool->lock);
  pool->closing = true;
  pthread_cond_broadcast(&pool->work);
  pthread_mutex_unlock(&pool->lock);
}

/* createPool(threadsMax, results: Int32Array, onCompletions(count)) -> external */
napi_value io_pool_create(napi_env env, napi_callback_info info) {
  napi_value arguments[3], name, external;
  size_t count = 3;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  struct pool *pool = calloc(1, sizeof *pool);
  if (pool == NULL) return door_throw(env, "out of memory");
  size_t length;
  void *data;
  napi_typedarray_type type;
  DOOR_OK(napi_get_value_int32(env, arguments[0], &pool->threads_max));
  DOOR_OK(napi_get_typedarray_info(env, arguments[1], &type, &length, &data, NULL, NULL));
  if (count != 3 || type != napi_int32_array || length < 2 * COMPLETIONS_BATCH || pool->threads_max < 1) {
    free(pool);
    return door_throw(env, "createPool(threadsMax, results: Int32Array of 512, onCompletions)");
  }
  pool->pairs = data;
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->work, NULL);
  DOOR_OK(napi_create_reference(env, arguments[1], 1, &pool->results));
  DOOR_OK(napi_create_string_utf8(env, "candor-io", NAPI_AUTO_LENGTH, &name));
  DOOR_OK(napi_create_threadsafe_function(env, arguments[2], NULL, name, 0, 1, NULL, NULL, pool, on_wake, &pool->wake));
  DOOR_OK(napi_unref_threadsafe_function(env, pool->wake));
  DOOR_OK(napi_add_env_cleanup_hook(env, on_cleanup, pool));
  DOOR_OK(napi_create_external(env, pool, NULL, NULL, &external));
  return external;
}

static struct job *new_job(struct pool *pool) {
  struct job *job = pool->spare;
  if (job == NULL) return calloc(1, sizeof *job);
  pool->spare = job->next;
  return job;
}

/* Whether the buffer holds what this kind of operation will touch. */
static bool room_for(const struct door_range *range, int kind, int flags) {
  switch (kind) {
    case IO_READ:
    case IO_WRITE:
    case IO_WRITE_DURABLE: return range->bytes != NULL && range->length <= range->room;
    case IO_EXTENTS: return range->bytes != NULL && flags > 0 && range->room >= 8 * (1 + 2 * (int64_t)flags);
    case IO_READ_SPARSE:
      return range->bytes != NULL && flags > 1 && ((uintptr_t)range->bytes & 7) == 0 &&
             range->room >= IO_RUNS_AT(range->length) + 8 * (1 + 2 * (int64_t)flags);
    case IO_SAME_FILE:
    case IO_FLUSH: return range->bytes == NULL || (range->room > 0 && range->bytes[range->room - 1] == 0);
    default: return range->bytes == NULL;
  }
}

/* submit(pool, ticket, kind, flags, fd, bytes | null, start, length, offset) -> 0 or errno; the ticket comes back
 * through onCompletions exactly once after 0, and never after an errno. */
napi_value io_pool_submit(napi_env env, napi_callback_info info) {
  napi_value arguments[9];
  size_t count = 9;
  struct pool *pool;
  int32_t kind, flags;
  uint32_t ticket;
  struct door_range range;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_value_external(env, arguments[0], (void **)&pool));
  DOOR_OK(napi_get_value_uint32(env, arguments[1], &ticket));
  DOOR_OK(napi_get_value_int32(env, arguments[2], &kind));
  DOOR_OK(napi_get_value_int32(env, arguments[3], &flags));
  if (count != 9 || !door_range(env, arguments + 4, &range) || !room_for(&range, kind, flags)) {
    return door_throw(env, "submit: the range is not sound");
  }
  struct job *job = new_job(pool);
  if (job == NULL) return door_int(env, ENOMEM);
  job->op = (struct io_op){kind, flags, range.fd, range.bytes, range.length, range.offset};
  job->ticket = ticket;
  job->next = NULL;

  pthread_mutex_lock(&pool->lock);
  if (pool->idle <= pool->queued && pool->threads < pool->threads_max) {
    const int error = start_thread(pool);
    if (error != 0) {
      pthread_mutex_unlock(&pool->lock);
      job->next = pool->spare;
      pool->spare = job;
      return door_int(env, error);
    }
  }
  if (pool->first == NULL) pool->first = job;
  else pool->last->next = job;
  pool->last = job;
  pool->queued += 1;
  pthread_cond_signal(&pool->work);
  pthread_mutex_unlock(&pool->lock);

  if (pool->pending++ == 0) napi_ref_threadsafe_function(env, pool->wake);
  return door_int(env, 0);
}
