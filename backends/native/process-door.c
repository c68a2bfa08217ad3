/* What a process needs to hand its work to another one: listening sockets whose path nobody takes away with a handle,
 * memory that goes as a descriptor, and the end of a process that is not libuv's child. */
#include "process-door.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "napi-door.h"

static int listen_at(const struct sockaddr_un *address, int backlog) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  if (bind(fd, (const struct sockaddr *)address, sizeof *address) == 0 && listen(fd, backlog) == 0) return fd;
  const int error = errno;
  close(fd);
  return -error;
}

/* listenUnix(path, backlog) -> a descriptor, or minus errno. The mode of the socket's file is the umask's business. */
static napi_value listen_unix(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  size_t count = 2, length;
  int32_t backlog;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_value_string_utf8(env, arguments[0], NULL, 0, &length));
  if (length == 0 || length >= sizeof address.sun_path) return door_int(env, -ENAMETOOLONG);
  DOOR_OK(napi_get_value_string_utf8(env, arguments[0], address.sun_path, sizeof address.sun_path, &length));
  DOOR_OK(napi_get_value_int32(env, arguments[1], &backlog));
  return door_int(env, listen_at(&address, backlog));
}

/* anonymousFile() -> a descriptor of an empty file in memory (memfd_create(2)), or minus errno. */
static napi_value anonymous_file(napi_env env, napi_callback_info info) {
  (void)info;
  const int fd = memfd_create("candor", MFD_CLOEXEC);
  return door_int(env, fd >= 0 ? fd : -errno);
}

/* waitChild(pid) -> its exit code, 128 and a signal's number, -1 while it lives, or -2 when it is no child of ours. */
static napi_value wait_child(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  int32_t pid;
  int status = 0;
  DOOR_OK(napi_get_cb_info(env, info, &count, &argument, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, argument, &pid));
  if (pid <= 0) return door_throw(env, "waitChild(pid)");
  const pid_t ended = waitpid(pid, &status, WNOHANG);
  if (ended == 0) return door_int(env, -1);
  if (ended < 0) return door_int(env, -2);
  return door_int(env, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

/* adoptOrphans() -> errno. Descendants whose parent ends become children of this process (prctl(2), PR_SET_CHILD_SUBREAPER). */
static napi_value adopt_orphans(napi_env env, napi_callback_info info) {
  (void)info;
  return door_int(env, prctl(PR_SET_CHILD_SUBREAPER, 1) == 0 ? 0 : errno);
}

napi_status process_door_define(napi_env env, napi_value exports) {
  const napi_property_descriptor properties[] = {
      {"listenUnix", NULL, listen_unix, NULL, NULL, NULL, napi_default, NULL},
      {"anonymousFile", NULL, anonymous_file, NULL, NULL, NULL, napi_default, NULL},
      {"waitChild", NULL, wait_child, NULL, NULL, NULL, napi_default, NULL},
      {"adoptOrphans", NULL, adopt_orphans, NULL, NULL, NULL, napi_default, NULL},
  };
  return napi_define_properties(env, exports, sizeof properties / sizeof *properties, properties);
}
