/* What both sides of the addon need of Node-API: arguments in, numbers out, misuse as an exception. */
#ifndef CANDOR_NAPI_DOOR_H
#define CANDOR_NAPI_DOOR_H

#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Arguments of a wrong type are a mistake of our own: an exception, never a guess. */
#define DOOR_OK(call)                                                \
  do {                                                               \
    if ((call) != napi_ok) return door_throw(env, "file-io: " #call); \
  } while (0)

struct door_range {
  int fd;
  uint8_t *bytes;
  int64_t room; /* bytes from `start` to the end of the buffer; 0 without one */
  int64_t length;
  int64_t offset;
};

static inline napi_value door_throw(napi_env env, const char *message) {
  bool pending = false;
  napi_is_exception_pending(env, &pending);
  if (!pending) napi_throw_type_error(env, NULL, message);
  return NULL;
}

static inline napi_value door_int(napi_env env, int value) {
  napi_value result;
  return napi_create_int32(env, value, &result) == napi_ok ? result : NULL;
}

static inline bool door_int64(napi_env env, napi_value value, int64_t *into) {
  return napi_get_value_int64(env, value, into) == napi_ok && *into >= 0;
}

/* Takes the five arguments (fd, bytes | null, start, length, offset); false when one is not sound. Whether `length`
 * has to fit the room in the buffer depends on the call. */
static inline bool door_range(napi_env env, napi_value *arguments, struct door_range *range) {
  int64_t start;
  if (napi_get_value_int32(env, arguments[0], &range->fd) != napi_ok) return false;
  if (!door_int64(env, arguments[2], &start) || !door_int64(env, arguments[3], &range->length) ||
      !door_int64(env, arguments[4], &range->offset)) {
    return false;
  }
  napi_typedarray_type type;
  size_t size = 0;
  void *data = NULL;
  range->bytes = NULL;
  range->room = 0;
  if (napi_get_typedarray_info(env, arguments[1], &type, &size, &data, NULL, NULL) != napi_ok) {
    napi_valuetype kind;
    return napi_typeof(env, arguments[1], &kind) == napi_ok && kind == napi_null;
  }
  if (type != napi_uint8_array || start > (int64_t)size) return false;
  range->bytes = (uint8_t *)data + start;
  range->room = (int64_t)size - start;
  return true;
}

#endif
