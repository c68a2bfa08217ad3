/* The eventfds of a queue. Law: they come from the other side, and none of them makes us wait, whatever it is. */
#include "vhost-events.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EVENT_NAME "anon_inode:[eventfd]"

struct vhost_kick {
  uv_poll_t poll; /* first: the handle is the kick */
  int fd;
  void *data;
  void (*kicked)(void *);
  void (*closed)(void *);
};

/* A pipe or a file could be anything, a FUSE file that never answers included; and libuv ends the process when epoll refuses
 * what was watched before, as it may with a nest of epoll descriptors. Where there is no /proc, the kernel's own descriptors,
 * which have no kind of file, have to do. */
static bool is_event(int fd) {
  char path[32], name[32];
  struct stat status;
  if (fstat(fd, &status) != 0 || (status.st_mode & S_IFMT) != 0) return false;
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(path, name, sizeof name);
  return length < 0 || ((size_t)length == sizeof EVENT_NAME - 1 && memcmp(name, EVENT_NAME, sizeof EVENT_NAME - 1) == 0);
}

int vhost_event_take(int fd) {
  if (!is_event(fd)) return -EBADF;
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (copy < 0) return -errno;
  const int flags = fcntl(copy, F_GETFL);
  if (flags >= 0 && ((flags & O_NONBLOCK) != 0 || fcntl(copy, F_SETFL, flags | O_NONBLOCK) == 0)) return copy;
  close(copy);
  return -EBADF;
}

void vhost_event_signal(int fd) {
  const uint64_t one = 1;
  /* EAGAIN: it is signalled already. Anything else is the other side's loss. */
  ssize_t written;
  do {
    written = write(fd, &one, sizeof one);
  } while (written < 0 && errno == EINTR);
}

static void on_kick(uv_poll_t *handle, int status, int events) {
  struct vhost_kick *kick = (struct vhost_kick *)handle;
  uint64_t times;
  (void)events;
  /* An eventfd has no errors; what has some is not watched any more: libuv has stopped. */
  if (status < 0) return;
  if (read(kick->fd, &times, sizeof times) < 0 && errno != EAGAIN && errno != EINTR) uv_poll_stop(handle);
  kick->kicked(kick->data);
}

struct vhost_kick *vhost_kick_open(uv_loop_t *loop, int fd, void *data, void (*kicked)(void *), void (*closed)(void *)) {
  struct vhost_kick *kick = calloc(1, sizeof *kick);
  if (kick == NULL) return NULL;
  *kick = (struct vhost_kick){.fd = fd, .data = data, .kicked = kicked, .closed = closed};
  if (uv_poll_init(loop, &kick->poll, fd) != 0) {
    free(kick);
    return NULL;
  }
  /* Cannot fail: the descriptor is new in this loop. */
  uv_poll_start(&kick->poll, UV_READABLE, on_kick);
  return kick;
}

static void on_closed(uv_handle_t *handle) {
  struct vhost_kick *kick = (struct vhost_kick *)handle;
  kick->closed(kick->data);
  free(kick);
}

void vhost_kick_close(struct vhost_kick *kick) {
  uv_close((uv_handle_t *)&kick->poll, on_closed);
  close(kick->fd);
}
