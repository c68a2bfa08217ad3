/* The doors to a virtqueue. Law: an id that is not out is a mistake of our own, and an exception. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "napi-door.h"
#include "vhost-data.h"
#include "vhost-queue.h"

#define FLAG_PACKED 1
#define FLAG_EVENT_IDX 2
#define FLAG_INDIRECT 4
#define ARGUMENTS_MAX 7

static void on_cleanup(napi_async_cleanup_hook_handle handle, void *argument) {
  (void)handle;
  vhost_queue_close(argument);
}

static void *array(napi_env env, napi_value value, napi_typedarray_type wanted, size_t least, size_t *length) {
  napi_typedarray_type type;
  void *data;
  if (napi_get_typedarray_info(env, value, &type, length, &data, NULL, NULL) != napi_ok) return NULL;
  return type == wanted && *length >= least ? data : NULL;
}

static int open_queue(struct vhost_queue *queue, uv_loop_t *loop, struct vhost_memory *memory,
                      const struct vhost_ring_options *options, int kick, int call) {
  int error = vhost_queue_init(queue, loop);
  if (error != 0) return error;
  error = vhost_ring_open(&queue->ring, memory, options);
  if (error == 0) error = vhost_queue_set_kick(queue, kick);
  if (error == 0) error = vhost_queue_set_call(queue, call);
  return error;
}

/* openVhostQueue(memory, words, addresses, inflight, table, told(count, reason)) -> external or errno.
 * words: size, flags, base, kick, call, requestsMax; addresses: descriptors, driver, device; inflight: fd, offset, size. */
static napi_value open_vhost_queue(napi_env env, napi_callback_info info) {
  napi_value arguments[6], external;
  size_t count = 6, length, log_length;
  struct vhost_memory *memory;
  uv_loop_t *loop;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_value_external(env, arguments[0], (void **)&memory));
  const double *words = array(env, arguments[1], napi_float64_array, 6, &length);
  const uint64_t *addresses = array(env, arguments[2], napi_biguint64_array, 3, &length);
  const double *log = array(env, arguments[3], napi_float64_array, 0, &log_length);
  double *table = array(env, arguments[4], napi_float64_array, VHOST_BATCH_MAX * VHOST_REQUEST_WORDS, &length);
  if (count != 6 || words == NULL || addresses == NULL || table == NULL) {
    return door_throw(env, "openVhostQueue(memory, words, addresses, inflight, table, told)");
  }
  if (!(words[0] >= 1 && words[0] <= VHOST_RING_SIZE_MAX && words[5] >= 1)) return door_int(env, EINVAL);
  if (!(words[2] >= 0 && words[2] <= UINT32_MAX)) return door_int(env, EINVAL);
  DOOR_OK(napi_get_uv_event_loop(env, &loop));
  const int flags = (int)words[1];
  const bool logs = log_length >= 3 && log[0] >= 0 && log[1] >= 0 && log[2] >= 0;
  const struct vhost_ring_options options = {
      .size = (uint16_t)words[0], .packed = flags & FLAG_PACKED, .event_idx = flags & FLAG_EVENT_IDX,
      .indirect = flags & FLAG_INDIRECT, .base = (uint32_t)words[2], .descriptors = addresses[0],
      .driver = addresses[1], .device = addresses[2], .log_fd = logs ? (int)log[0] : -1,
      .log_offset = logs ? (uint64_t)log[1] : 0, .log_length = logs ? (uint64_t)log[2] : 0};
  struct vhost_queue *queue = calloc(1, sizeof *queue);
  if (queue == NULL) return door_int(env, ENOMEM);
  queue->table = table;
  queue->requests_max = (uint16_t)(words[5] > words[0] ? words[0] : words[5]);
  DOOR_OK(door_callback_open(&queue->told, env, arguments[5], "candor-vhost-queue"));
  DOOR_OK(napi_create_reference(env, arguments[4], 1, &queue->table_kept));
  DOOR_OK(napi_add_async_cleanup_hook(env, on_cleanup, queue, &queue->cleanup));
  const int error = open_queue(queue, loop, memory, &options, (int)words[3], (int)words[4]);
  if (error != 0) {
    vhost_queue_close(queue);
    return door_int(env, error);
  }
  DOOR_OK(napi_create_external(env, queue, NULL, NULL, &external));
  return external;
}

/* The queue, and what follows it. */
static bool queue_arguments(napi_env env, napi_callback_info info, size_t wanted, struct vhost_queue **queue,
                            napi_value *more) {
  napi_value arguments[ARGUMENTS_MAX];
  size_t count = ARGUMENTS_MAX;
  if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != napi_ok || count != wanted + 1) return false;
  if (napi_get_value_external(env, arguments[0], (void **)queue) != napi_ok) return false;
  if (wanted > 0) memcpy(more, arguments + 1, wanted * sizeof *more);
  return true;
}

static struct vhost_chain *chain_argument(napi_env env, const struct vhost_queue *queue, napi_value value) {
  uint32_t id;
  if (napi_get_value_uint32(env, value, &id) != napi_ok || id >= queue->ring.size) return NULL;
  return queue->ring.chains[id];
}

static napi_value start(napi_env env, napi_callback_info info) {
  struct vhost_queue *queue;
  if (!queue_arguments(env, info, 0, &queue, NULL)) return door_throw(env, "vhostQueueStart(queue)");
  vhost_queue_start(queue);
  return NULL;
}

static napi_value poll_ring(napi_env env, napi_callback_info info) {
  struct vhost_queue *queue;
  if (!queue_arguments(env, info, 0, &queue, NULL)) return door_throw(env, "vhostQueuePoll(queue)");
  vhost_queue_poll(queue);
  return NULL;
}

static napi_value await_ring(napi_env env, napi_callback_info info) {
  napi_value more[2], result;
  struct vhost_queue *queue;
  uint32_t ns;
  bool hold;
  if (!queue_arguments(env, info, 2, &queue, more)) return door_throw(env, "vhostQueueAwait(queue, ns, hold)");
  DOOR_OK(napi_get_value_uint32(env, more[0], &ns));
  DOOR_OK(napi_get_value_bool(env, more[1], &hold));
  DOOR_OK(napi_get_boolean(env, vhost_queue_await(queue, ns, hold), &result));
  return result;
}

static napi_value copy(napi_env env, napi_callback_info info, bool out) {
  napi_value more[5];
  struct vhost_queue *queue;
  size_t room;
  int64_t start_at, length, from;
  if (!queue_arguments(env, info, 5, &queue, more)) return door_throw(env, "five arguments and the queue");
  struct vhost_chain *chain = chain_argument(env, queue, more[0]);
  uint8_t *bytes = array(env, more[1], napi_uint8_array, 0, &room);
  if (chain == NULL) return door_throw(env, "this request is not out");
  if (!door_int64(env, more[2], &start_at) || !door_int64(env, more[3], &length) || !door_int64(env, more[4], &from) ||
      start_at > (int64_t)room || length > (int64_t)room - start_at) {
    return door_throw(env, "the range is not sound");
  }
  if (length == 0) return door_int(env, 0);
  return door_int(
      env, vhost_data_copy(chain, queue->ring.memory, out, bytes + start_at, (size_t)length, (uint64_t)from));
}

static napi_value gather(napi_env env, napi_callback_info info) { return copy(env, info, true); }

static napi_value scatter(napi_env env, napi_callback_info info) { return copy(env, info, false); }

static napi_value file(napi_env env, napi_callback_info info, bool out) {
  napi_value more[6];
  struct vhost_queue *queue;
  int32_t fd, nowait;
  int64_t from, length, offset;
  if (!queue_arguments(env, info, 6, &queue, more)) return door_throw(env, "six arguments and the queue");
  struct vhost_chain *chain = chain_argument(env, queue, more[0]);
  if (chain == NULL) return door_throw(env, "this request is not out");
  DOOR_OK(napi_get_value_int32(env, more[1], &fd));
  DOOR_OK(napi_get_value_int32(env, more[5], &nowait));
  if (!door_int64(env, more[2], &from) || !door_int64(env, more[3], &length) || !door_int64(env, more[4], &offset)) {
    return door_throw(env, "the range is not sound");
  }
  return door_int(env, vhost_data_file(chain, queue->ring.memory, out, fd, (uint64_t)from, (uint64_t)length, offset,
                                       nowait != 0));
}

static napi_value read_now(napi_env env, napi_callback_info info) { return file(env, info, false); }

static napi_value write_now(napi_env env, napi_callback_info info) { return file(env, info, true); }

static napi_value complete(napi_env env, napi_callback_info info) {
  napi_value more[3];
  struct vhost_queue *queue;
  uint32_t id, status, written;
  if (!queue_arguments(env, info, 3, &queue, more)) return door_throw(env, "vhostQueueComplete(queue, id, status, written)");
  if (chain_argument(env, queue, more[0]) == NULL) return door_throw(env, "this request is not out");
  DOOR_OK(napi_get_value_uint32(env, more[0], &id));
  DOOR_OK(napi_get_value_uint32(env, more[1], &status));
  DOOR_OK(napi_get_value_uint32(env, more[2], &written));
  vhost_queue_complete(queue, (uint16_t)id, (uint8_t)status, written);
  return NULL;
}

static napi_value notify(napi_env env, napi_callback_info info) {
  struct vhost_queue *queue;
  if (!queue_arguments(env, info, 0, &queue, NULL)) return door_throw(env, "vhostQueueNotify(queue)");
  vhost_queue_notify(queue);
  return NULL;
}

static napi_value set_event(napi_env env, napi_callback_info info, int (*set)(struct vhost_queue *, int)) {
  napi_value more;
  struct vhost_queue *queue;
  int32_t fd;
  if (!queue_arguments(env, info, 1, &queue, &more)) return door_throw(env, "a queue and a descriptor");
  DOOR_OK(napi_get_value_int32(env, more, &fd));
  return door_int(env, set(queue, fd));
}

static napi_value set_call(napi_env env, napi_callback_info info) { return set_event(env, info, vhost_queue_set_call); }

static napi_value set_kick(napi_env env, napi_callback_info info) { return set_event(env, info, vhost_queue_set_kick); }

static napi_value stop(napi_env env, napi_callback_info info) {
  napi_value result;
  struct vhost_queue *queue;
  if (!queue_arguments(env, info, 0, &queue, NULL)) return door_throw(env, "vhostQueueStop(queue)");
  DOOR_OK(napi_create_uint32(env, vhost_queue_stop(queue), &result));
  return result;
}

static napi_value close_vhost_queue(napi_env env, napi_callback_info info) {
  struct vhost_queue *queue;
  if (!queue_arguments(env, info, 0, &queue, NULL)) return door_throw(env, "vhostQueueClose(queue)");
  vhost_queue_close(queue);
  return NULL;
}

/* vhostInflightBytes(size, packed) -> bytes of a queue's region in the in-flight log. */
static napi_value inflight_bytes(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  size_t count = 2;
  uint32_t size;
  bool packed;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_value_uint32(env, arguments[0], &size));
  DOOR_OK(napi_get_value_bool(env, arguments[1], &packed));
  return door_int(env, (int)vhost_log_bytes((uint16_t)size, packed));
}

napi_status vhost_queue_define(napi_env env, napi_value exports) {
#define DOOR(name, function) {name, NULL, function, NULL, NULL, NULL, napi_default, NULL}
  const napi_property_descriptor properties[] = {
      DOOR("openVhostQueue", open_vhost_queue), DOOR("vhostQueueStart", start),     DOOR("vhostQueuePoll", poll_ring),
      DOOR("vhostQueueAwait", await_ring),
      DOOR("vhostQueueGather", gather),         DOOR("vhostQueueScatter", scatter), DOOR("vhostQueueReadNow", read_now),
      DOOR("vhostQueueWriteNow", write_now),    DOOR("vhostQueueComplete", complete),
      DOOR("vhostQueueNotify", notify),         DOOR("vhostQueueSetCall", set_call),
      DOOR("vhostQueueSetKick", set_kick),      DOOR("vhostQueueStop", stop),
      DOOR("vhostQueueClose", close_vhost_queue), DOOR("vhostInflightBytes", inflight_bytes),
  };
  return napi_define_properties(env, exports, sizeof properties / sizeof *properties, properties);
}
