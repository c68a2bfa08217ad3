/* What the kernel knows of the other end of a socket that nobody reads. Law: nothing is taken out of the socket, and
 * nothing is waited for. */
#include "socket-peer.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "napi-door.h"

#define PEER_THERE 0
#define PEER_SILENT 1
#define PEER_GONE 2

/* What lies before the tail is copied here, again and again: a peek begins at the first unread byte. */
#define SCRATCH_BYTES (64 * 1024)
#define SCRATCH_PARTS 1000

static int option(int fd, int name, int *value) {
  socklen_t size = sizeof *value;
  return getsockopt(fd, SOL_SOCKET, name, value, &size) == 0 ? 0 : -errno;
}

int unix_stream_listens(int fd) {
  int domain = 0, type = 0, listens = 0;
  struct sockaddr_un peer;
  socklen_t size = sizeof peer;
  const int error = option(fd, SO_DOMAIN, &domain);
  if (error != 0) return error;
  if (domain != AF_UNIX || option(fd, SO_TYPE, &type) != 0 || type != SOCK_STREAM) return -EPROTOTYPE;
  if (option(fd, SO_ACCEPTCONN, &listens) == 0 && listens != 0) return 1;
  return getpeername(fd, (struct sockaddr *)&peer, &size) == 0 ? 0 : -errno;
}

/* isListening(fd) -> 1 a Unix stream socket that listens, 0 one that is connected, or minus errno. */
napi_value is_listening(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  int32_t fd;
  DOOR_OK(napi_get_cb_info(env, info, &count, &argument, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, argument, &fd));
  return door_int(env, unix_stream_listens(fd));
}

/* hungUp(fd) -> 0 the peer is there, 1 it has shut down its sending side, 2 it is gone. */
napi_value hung_up(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  struct pollfd ask = {.events = POLLRDHUP};
  DOOR_OK(napi_get_cb_info(env, info, &count, &argument, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, argument, &ask.fd));
  if (poll(&ask, 1, 0) <= 0) return door_int(env, PEER_THERE);
  if (ask.revents & (POLLHUP | POLLERR | POLLNVAL)) return door_int(env, PEER_GONE);
  return door_int(env, ask.revents & POLLRDHUP ? PEER_SILENT : PEER_THERE);
}

static bool same_name(int fd, int ours) {
  struct sockaddr_un peer, own;
  socklen_t peer_size = sizeof peer, own_size = sizeof own;
  if (getpeername(fd, (struct sockaddr *)&peer, &peer_size) != 0) return false;
  if (getsockname(ours, (struct sockaddr *)&own, &own_size) != 0) return false;
  const bool named = own.sun_family == AF_UNIX && own_size > offsetof(struct sockaddr_un, sun_path);
  return named && peer_size == own_size && memcmp(&peer, &own, own_size) == 0;
}

/* isOwnEnd(fd, ours) -> 1 when `fd` is an end of a Unix socket whose other end is ours: this process listened for it or made
 * it, or it was connected to where `ours` was. */
napi_value is_own_end(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  size_t count = 2;
  int32_t fd, ours;
  struct ucred peer;
  socklen_t size = sizeof peer;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, arguments[0], &fd));
  DOOR_OK(napi_get_value_int32(env, arguments[1], &ours));
  const bool mine = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid == getpid();
  return door_int(env, mine || same_name(fd, ours));
}

static int peek_tail(int fd, uint8_t *tail, size_t length, size_t before) {
  static uint8_t scratch[SCRATCH_BYTES]; /* written, never read: threads may share it */
  struct iovec parts[SCRATCH_PARTS + 1];
  size_t used = 0;
  for (size_t left = before; left > 0; used++) {
    if (used == SCRATCH_PARTS) return 0;
    const size_t some = left < SCRATCH_BYTES ? left : SCRATCH_BYTES;
    parts[used] = (struct iovec){.iov_base = scratch, .iov_len = some};
    left -= some;
  }
  parts[used++] = (struct iovec){.iov_base = tail, .iov_len = length};
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = used};
  return recvmsg(fd, &message, MSG_PEEK | MSG_DONTWAIT) == (ssize_t)(before + length);
}

/* unreadTail(fd, into: Uint8Array) -> bytes that wait to be read; the last of them are put at the end of `into`, zeroes
 * before them where they are fewer. */
napi_value unread_tail(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  size_t count = 2, room;
  int32_t fd;
  int unread = 0;
  void *into;
  napi_typedarray_type type;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, arguments[0], &fd));
  DOOR_OK(napi_get_typedarray_info(env, arguments[1], &type, &room, &into, NULL, NULL));
  if (type != napi_uint8_array) return door_throw(env, "unreadTail(fd, Uint8Array)");
  memset(into, 0, room);
  if (ioctl(fd, FIONREAD, &unread) != 0 || unread < 0) unread = 0;
  const size_t all = (size_t)unread, length = all < room ? all : room;
  if (length > 0 && !peek_tail(fd, (uint8_t *)into + (room - length), length, all - length)) memset(into, 0, room);
  return door_int(env, unread);
}
