/* What systemd wants of a service and Node cannot do: a datagram to a Unix socket, with a descriptor where one is to be kept
 * (sd_notify(3), sd_pid_notify_with_fds(3), unix(7)). */
#include "service-manager.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "napi-door.h"

static ssize_t send_text(int socket, struct sockaddr_un *address, socklen_t address_bytes, char *text, size_t bytes, int fd) {
  union {
    struct cmsghdr align;
    char room[CMSG_SPACE(sizeof(int))];
  } control = {0};
  struct iovec part = {.iov_base = text, .iov_len = bytes};
  struct msghdr message = {.msg_name = address, .msg_namelen = address_bytes, .msg_iov = &part, .msg_iovlen = 1};
  if (fd >= 0) {
    message.msg_control = control.room;
    message.msg_controllen = sizeof control.room;
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    *head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
  }
  return sendmsg(socket, &message, MSG_NOSIGNAL);
}

/* sendTo(path, text, fd) -> errno. A path that begins with '@' is an abstract name; no descriptor goes along below 0. Never
 * waits. */
napi_value service_manager_send(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  size_t count = 3, path_bytes, text_bytes;
  int32_t with;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  char text[4096];
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  if (count != 3 || napi_get_value_int32(env, arguments[2], &with) != napi_ok) {
    return door_throw(env, "sendTo(path, text, fd)");
  }
  DOOR_OK(napi_get_value_string_utf8(env, arguments[0], address.sun_path, sizeof address.sun_path, &path_bytes));
  DOOR_OK(napi_get_value_string_utf8(env, arguments[1], text, sizeof text, &text_bytes));
  if (path_bytes == 0 || path_bytes + 1 >= sizeof address.sun_path) return door_int(env, ENAMETOOLONG);
  if (text_bytes + 1 >= sizeof text) return door_int(env, EMSGSIZE);
  socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_bytes);
  if (address.sun_path[0] == '@') address.sun_path[0] = 0;
  else length += 1;
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return door_int(env, errno);
  const ssize_t sent = send_text(fd, &address, length, text, text_bytes, with);
  const int error = sent == (ssize_t)text_bytes ? 0 : sent < 0 ? errno : EMSGSIZE;
  close(fd);
  return door_int(env, error);
}
