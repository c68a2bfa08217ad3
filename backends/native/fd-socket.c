/* A Unix stream socket that carries descriptors, watched by the event loop of the thread that made it.
 * Laws: it ends once, and tells nothing afterwards; a peer that sends without end gets its turn and no more; what waits to
 * be sent is bounded. Nothing here is shared between threads. */
#include "fd-socket.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <uv.h>

#include "door-callback.h"
#include "fd-message.h"
#include "fd-outbox.h"
#include "napi-door.h"
#include "socket-peer.h"

struct fd_socket {
  uv_poll_t poll; /* first: the handle is the socket */
  int fd;
  bool ended, closing;
  struct fd_outbox_bounds unsent_max;
  struct fd_outbox outbox;
  uint8_t *slab;
  size_t room;
  napi_ref slab_kept;
  struct door_callback told; /* (length, fds, errno) */
  napi_async_cleanup_hook_handle cleanup;
};

static void on_event(uv_poll_t *handle, int status, int events);

static int watch(struct fd_socket *socket) {
  const int events = (socket->ended ? 0 : UV_READABLE) | (socket->outbox.first == NULL ? 0 : UV_WRITABLE);
  return events == 0 ? uv_poll_stop(&socket->poll) : uv_poll_start(&socket->poll, events, on_event);
}

/* Bytes and their descriptors (length > 0), or the end (length 0) with its errno. */
static void tell(struct fd_socket *socket, size_t length, const struct fd_list *list, int error) {
  napi_env env = socket->told.env;
  napi_handle_scope scope;
  napi_value words[3], fd;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_create_uint32(env, (uint32_t)length, &words[0]);
  napi_create_array(env, &words[1]);
  for (size_t index = 0; list != NULL && index < list->count; index++) {
    napi_create_int32(env, list->fds[index], &fd);
    napi_set_element(env, words[1], (uint32_t)index, fd);
  }
  napi_create_int32(env, error, &words[2]);
  door_callback_call(&socket->told, 3, words);
  napi_close_handle_scope(env, scope);
}

static void end(struct fd_socket *socket, int error) {
  if (socket->ended) return;
  socket->ended = true;
  if (error != 0) fd_outbox_clear(&socket->outbox);
  watch(socket);
  tell(socket, 0, NULL, error);
}

/* One piece. False when there is nothing more to read now. */
static bool receive(struct fd_socket *socket) {
  struct fd_list list;
  const ssize_t got = fd_message_receive(socket->fd, socket->slab, socket->room, &list);
  if (got == -EAGAIN) return false;
  if (got <= 0) {
    end(socket, (int)-got);
    return false;
  }
  if (list.cut) {
    fd_list_close(&list);
    end(socket, EMFILE);
    return false;
  }
  tell(socket, (size_t)got, &list, 0);
  return !socket->ended && !socket->closing;
}

static void on_event(uv_poll_t *handle, int status, int events) {
  struct fd_socket *socket = (struct fd_socket *)handle;
  /* The socket has an error: libuv has stopped watching. What the peer sent before is still there to be read, to the end. */
  if (status < 0) {
    while (!socket->ended && receive(socket)) continue;
    if (!socket->closing) end(socket, ECONNRESET);
    return;
  }
  if (events & UV_WRITABLE) {
    const int error = fd_outbox_resume(&socket->outbox, socket->fd);
    if (error != 0 && error != EAGAIN) {
      fd_outbox_clear(&socket->outbox);
      end(socket, error);
    }
    if (!socket->closing) watch(socket);
  }
  /* What is left makes the socket readable in the next turn as well. */
  if ((events & UV_READABLE) && !socket->ended && !socket->closing) receive(socket);
}

static void on_closed(uv_handle_t *handle) {
  struct fd_socket *socket = (struct fd_socket *)handle;
  napi_delete_reference(socket->told.env, socket->slab_kept);
  door_callback_close(&socket->told);
  napi_remove_async_cleanup_hook(socket->cleanup);
  free(socket);
}

static void close_socket(struct fd_socket *socket) {
  if (socket->closing) return;
  socket->closing = true;
  socket->ended = true;
  fd_outbox_clear(&socket->outbox);
  uv_close((uv_handle_t *)&socket->poll, on_closed);
  close(socket->fd);
}

static void on_cleanup(napi_async_cleanup_hook_handle handle, void *argument) {
  (void)handle;
  close_socket(argument);
}

/* 0, or why the event loop is not let near a descriptor: libuv ends the process when a watched one is refused by epoll later,
 * as others than sockets may be. */
static int usable(int fd) {
  const int listens = unix_stream_listens(fd);
  return listens > 0 ? ENOTCONN : -listens;
}

/* openFdSocket(fd, slab: Uint8Array, unsentMax, unsentFdsMax, told(length, fds, errno)) -> external, the descriptor is the
 * socket's; or an errno. */
static napi_value open_fd_socket(napi_env env, napi_callback_info info) {
  napi_value arguments[5], external;
  size_t count = 5, room;
  int32_t fd;
  int64_t unsent_max, unsent_fds_max;
  void *slab;
  napi_typedarray_type type;
  uv_loop_t *loop;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, arguments[0], &fd));
  DOOR_OK(napi_get_typedarray_info(env, arguments[1], &type, &room, &slab, NULL, NULL));
  if (count != 5 || type != napi_uint8_array || room == 0 || !door_int64(env, arguments[2], &unsent_max) ||
      !door_int64(env, arguments[3], &unsent_fds_max)) {
    return door_throw(env, "openFdSocket(fd, Uint8Array, unsentMax, unsentFdsMax, told)");
  }
  DOOR_OK(napi_get_uv_event_loop(env, &loop));
  const int error = usable(fd);
  if (error != 0) return door_int(env, error);
  struct fd_socket *socket = calloc(1, sizeof *socket);
  if (socket == NULL) return door_throw(env, "out of memory");
  socket->fd = fd;
  socket->slab = slab;
  socket->room = room;
  socket->unsent_max = (struct fd_outbox_bounds){.bytes = (size_t)unsent_max, .fds = (size_t)unsent_fds_max};
  const int refused = uv_poll_init(loop, &socket->poll, fd);
  if (refused != 0) {
    free(socket);
    return door_int(env, -refused);
  }
  DOOR_OK(door_callback_open(&socket->told, env, arguments[4], "candor-fd-socket"));
  DOOR_OK(napi_create_reference(env, arguments[1], 1, &socket->slab_kept));
  DOOR_OK(napi_add_async_cleanup_hook(env, on_cleanup, socket, &socket->cleanup));
  DOOR_OK(napi_create_external(env, socket, NULL, NULL, &external));
  if (watch(socket) != 0) return door_throw(env, "this descriptor cannot be watched");
  return external;
}

static bool fd_arguments(napi_env env, napi_value array, int *fds, uint32_t *count) {
  if (napi_get_array_length(env, array, count) != napi_ok || *count > FD_MESSAGE_FDS_MAX) return false;
  for (uint32_t index = 0; index < *count; index++) {
    napi_value fd;
    if (napi_get_element(env, array, index, &fd) != napi_ok) return false;
    if (napi_get_value_int32(env, fd, &fds[index]) != napi_ok) return false;
  }
  return true;
}

/* fdSocketSend(socket, bytes, fds) -> errno. */
static napi_value fd_socket_send(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  size_t count = 3, length;
  uint32_t fds_count;
  int fds[FD_MESSAGE_FDS_MAX];
  struct fd_socket *socket;
  void *bytes;
  napi_typedarray_type type;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_value_external(env, arguments[0], (void **)&socket));
  DOOR_OK(napi_get_typedarray_info(env, arguments[1], &type, &length, &bytes, NULL, NULL));
  if (type != napi_uint8_array || length == 0 || !fd_arguments(env, arguments[2], fds, &fds_count)) {
    return door_throw(env, "fdSocketSend(socket, Uint8Array of at least a byte, at most 253 descriptors)");
  }
  const int error = fd_outbox_send(&socket->outbox, socket->fd, bytes, length, fds, fds_count, socket->unsent_max);
  if (error == 0 && socket->outbox.first != NULL) watch(socket);
  return door_int(env, error);
}

/* fdSocketUnsent(socket) -> bytes that wait for the peer. */
static napi_value fd_socket_unsent(napi_env env, napi_callback_info info) {
  napi_value argument, result;
  size_t count = 1;
  struct fd_socket *socket;
  DOOR_OK(napi_get_cb_info(env, info, &count, &argument, NULL, NULL));
  DOOR_OK(napi_get_value_external(env, argument, (void **)&socket));
  DOOR_OK(napi_create_double(env, (double)socket->outbox.bytes, &result));
  return result;
}

/* fdSocketClose(socket): the external is of no use afterwards. */
static napi_value fd_socket_close(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  struct fd_socket *socket;
  DOOR_OK(napi_get_cb_info(env, info, &count, &argument, NULL, NULL));
  DOOR_OK(napi_get_value_external(env, argument, (void **)&socket));
  close_socket(socket);
  return NULL;
}

/* eventFd() -> eventfd(2), close-on-exec and non-blocking, or minus errno. */
static napi_value event_fd(napi_env env, napi_callback_info info) {
  (void)info;
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return door_int(env, fd >= 0 ? fd : -errno);
}

napi_status fd_socket_define(napi_env env, napi_value exports) {
  const napi_property_descriptor properties[] = {
      {"openFdSocket", NULL, open_fd_socket, NULL, NULL, NULL, napi_default, NULL},
      {"fdSocketSend", NULL, fd_socket_send, NULL, NULL, NULL, napi_default, NULL},
      {"fdSocketUnsent", NULL, fd_socket_unsent, NULL, NULL, NULL, napi_default, NULL},
      {"fdSocketClose", NULL, fd_socket_close, NULL, NULL, NULL, napi_default, NULL},
      {"eventFd", NULL, event_fd, NULL, NULL, NULL, napi_default, NULL},
  };
  return napi_define_properties(env, exports, sizeof properties / sizeof *properties, properties);
}
