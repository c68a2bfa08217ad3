/* The eventfds of a queue. Law: they come from the other side, and none of them makes us wait, whatever it is. Whether a
 * write waits is for the other side to say (O_NONBLOCK is of the open file description), so room is asked for first: it can
 * still be filled in the instant between question and write. */
#include "vhost-events.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "foreign-fd.h"

struct vhost_kick {
  uv_poll_t poll; /* first: the handle is the kick */
  int fd;
  void *data;
  void (*kicked)(void *);
  void (*closed)(void *);
};

/* A pipe or a file could be anything; and libuv ends the process when epoll refuses what was watched before, as it may with a
 * nest of epoll descriptors. */
int vhost_event_take(int fd) {
  if (!foreign_is_event(fd)) return -EBADF;
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (copy < 0) return -errno;
  const int flags = fcntl(copy, F_GETFL);
  if (flags >= 0 && ((flags & O_NONBLOCK) != 0 || fcntl(copy, F_SETFL, flags | O_NONBLOCK) == 0)) return copy;
  close(copy);
  return -EBADF;
}

void vhost_event_signal(int fd) {
  const uint64_t one = 1;
  struct pollfd room = {.fd = fd, .events = POLLOUT};
  /* No room: it is signalled already. Anything else is the other side's loss. */
  if (poll(&room, 1, 0) != 1 || (room.revents & POLLOUT) == 0) return;
  ssize_t written;
  do {
    written = write(fd, &one, sizeof one);
  } while (written < 0 && errno == EINTR);
}

/* Takes what was signalled; an errno when it is of no use any more. */
static int take_signal(int fd) {
  uint64_t times;
  struct iovec into = {.iov_base = &times, .iov_len = sizeof times};
  ssize_t got = preadv2(fd, &into, 1, -1, RWF_NOWAIT);
  if (got < 0 && (errno == EOPNOTSUPP || errno == ENOSYS)) got = read(fd, &times, sizeof times);
  return got >= 0 || errno == EAGAIN || errno == EINTR ? 0 : errno;
}

static void on_kick(uv_poll_t *handle, int status, int events) {
  struct vhost_kick *kick = (struct vhost_kick *)handle;
  (void)events;
  /* An eventfd has no errors; what has some is not watched any more: libuv has stopped. */
  if (status < 0) return;
  if (take_signal(kick->fd) != 0) uv_poll_stop(handle);
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
