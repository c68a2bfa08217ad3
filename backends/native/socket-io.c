/* A stream socket that is written to without a detour through the event loop. Law: nothing here waits for the peer; what
 * it does not take at once is the caller's to give to libuv. */
#include "socket-io.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "napi-door.h"

/* sendNow(fd, bytes, start, length) -> bytes taken, 0 when the peer's buffer is full, or minus errno. */
static napi_value send_now(napi_env env, napi_callback_info info) {
  napi_value arguments[4];
  size_t count = 4, size = 0;
  int32_t fd;
  int64_t start, length;
  void *data = NULL;
  napi_typedarray_type type;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, arguments[0], &fd));
  DOOR_OK(napi_get_typedarray_info(env, arguments[1], &type, &size, &data, NULL, NULL));
  if (type != napi_uint8_array || !door_int64(env, arguments[2], &start) || !door_int64(env, arguments[3], &length) ||
      start > (int64_t)size || length > (int64_t)size - start || length > INT32_MAX) {
    return door_throw(env, "sendNow: the range is not sound");
  }
  ssize_t sent;
  do {
    sent = send(fd, (const uint8_t *)data + start, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0) return door_int(env, (int)sent);
  return door_int(env, errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno);
}

/* sendBuffer(fd, bytes) -> errno; EOPNOTSUPP but for Unix sockets: TCP's buffer grows until it is set. SO_SNDBUF of socket(7), which the kernel doubles, and cuts at
 * net.core.wmem_max unless the caller has CAP_NET_ADMIN. */
static napi_value send_buffer(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  size_t count = 2;
  int32_t fd, bytes;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, arguments[0], &fd));
  DOOR_OK(napi_get_value_int32(env, arguments[1], &bytes));
  int domain = 0;
  socklen_t size = sizeof domain;
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) return door_int(env, errno);
  if (domain != AF_UNIX) return door_int(env, EOPNOTSUPP);
  int result = setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
  if (result != 0) result = setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  return door_int(env, result == 0 ? 0 : errno);
}

napi_status socket_io_define(napi_env env, napi_value exports) {
  const napi_property_descriptor properties[] = {
      {"sendNow", NULL, send_now, NULL, NULL, NULL, napi_default, NULL},
      {"sendBuffer", NULL, send_buffer, NULL, NULL, NULL, napi_default, NULL},
  };
  return napi_define_properties(env, exports, sizeof properties / sizeof *properties, properties);
}
