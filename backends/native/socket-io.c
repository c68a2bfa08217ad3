/* A stream socket that is written to without a detour through the event loop. Law: nothing here waits for the peer; what
 * it does not take at once is the caller's to give to libuv. */
#include "socket-io.h"

#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <time.h>

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

static int64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* receiveNow(fd, bytes, patienceNs) -> bytes that came, 0 when there are none. Errors and the end of the stream are not
 * told: they are there for libuv as well. With patience it looks again and again, and lets others run in between. */
static napi_value receive_now(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  size_t count = 3, size = 0;
  int32_t fd;
  int64_t patience;
  void *data = NULL;
  napi_typedarray_type type;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, arguments[0], &fd));
  DOOR_OK(napi_get_typedarray_info(env, arguments[1], &type, &size, &data, NULL, NULL));
  if (type != napi_uint8_array || !door_int64(env, arguments[2], &patience)) {
    return door_throw(env, "receiveNow(fd, bytes, patienceNs)");
  }
  int64_t until = patience == 0 ? 0 : now_ns() + patience;
  for (;;) {
    ssize_t got = recv(fd, data, size, MSG_DONTWAIT);
    if (got >= 0) return door_int(env, (int)got);
    if (errno != EAGAIN && errno != EINTR) return door_int(env, 0);
    if (until == 0 || now_ns() >= until) return door_int(env, 0);
    sched_yield();
  }
}

int socket_send_buffer(int fd, int bytes) {
  int domain = 0;
  socklen_t size = sizeof domain;
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) return errno;
  if (domain != AF_UNIX) return EOPNOTSUPP;
  int result = setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
  if (result != 0) result = setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  return result == 0 ? 0 : errno;
}

/* sendBuffer(fd, bytes) -> errno. */
static napi_value send_buffer(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  size_t count = 2;
  int32_t fd, bytes;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, arguments[0], &fd));
  DOOR_OK(napi_get_value_int32(env, arguments[1], &bytes));
  return door_int(env, socket_send_buffer(fd, bytes));
}

/* toLine(bytes, lineBytes) -> bytes from their beginning to the next multiple of lineBytes, a power of two, in memory. */
static napi_value to_line(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  size_t count = 2, size;
  uint32_t line;
  void *data = NULL;
  napi_typedarray_type type;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_typedarray_info(env, arguments[0], &type, &size, &data, NULL, NULL));
  DOOR_OK(napi_get_value_uint32(env, arguments[1], &line));
  return door_int(env, (int)(-(uintptr_t)data & (line - 1)));
}

/* freeNow(bytes): gives the memory behind a buffer back at once, not when V8 looks for garbage; nothing of it is left. */
static napi_value free_now(napi_env env, napi_callback_info info) {
  napi_value argument, memory;
  size_t count = 1, size;
  napi_typedarray_type type;
  void *data;
  DOOR_OK(napi_get_cb_info(env, info, &count, &argument, NULL, NULL));
  DOOR_OK(napi_get_typedarray_info(env, argument, &type, &size, &data, &memory, NULL));
  DOOR_OK(napi_detach_arraybuffer(env, memory));
  return NULL;
}

napi_status socket_io_define(napi_env env, napi_value exports) {
  const napi_property_descriptor properties[] = {
      {"sendNow", NULL, send_now, NULL, NULL, NULL, napi_default, NULL},
      {"receiveNow", NULL, receive_now, NULL, NULL, NULL, napi_default, NULL},
      {"toLine", NULL, to_line, NULL, NULL, NULL, napi_default, NULL},
      {"freeNow", NULL, free_now, NULL, NULL, NULL, napi_default, NULL},
      {"sendBuffer", NULL, send_buffer, NULL, NULL, NULL, napi_default, NULL},
  };
  return napi_define_properties(env, exports, sizeof properties / sizeof *properties, properties);
}
