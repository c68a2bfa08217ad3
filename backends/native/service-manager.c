/* What systemd wants of a service and Node cannot do: a datagram to a Unix socket (sd_notify(3), unix(7)). */
#include "service-manager.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "napi-door.h"

/* sendTo(path, text) -> errno. A path that begins with '@' is an abstract name. Never waits. */
napi_value service_manager_send(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  size_t count = 2, path_bytes, text_bytes;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  char text[4096];
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  if (count != 2) return door_throw(env, "sendTo(path, text)");
  DOOR_OK(napi_get_value_string_utf8(env, arguments[0], address.sun_path, sizeof address.sun_path, &path_bytes));
  DOOR_OK(napi_get_value_string_utf8(env, arguments[1], text, sizeof text, &text_bytes));
  if (path_bytes == 0 || path_bytes + 1 >= sizeof address.sun_path) return door_int(env, ENAMETOOLONG);
  if (text_bytes + 1 >= sizeof text) return door_int(env, EMSGSIZE);
  socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_bytes);
  if (address.sun_path[0] == '@') address.sun_path[0] = 0;
  else length += 1;
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return door_int(env, errno);
  const ssize_t sent = sendto(fd, text, text_bytes, MSG_NOSIGNAL, (struct sockaddr *)&address, length);
  const int error = sent == (ssize_t)text_bytes ? 0 : sent < 0 ? errno : EMSGSIZE;
  close(fd);
  return door_int(env, error);
}
