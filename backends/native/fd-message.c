/* Bytes and descriptors through a Unix stream socket. Law: a descriptor that was received is in the list or closed, and
 * none of them survives an exec. */
#include "fd-message.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "foreign-fd.h"

union control {
  struct cmsghdr align;
  char room[CMSG_SPACE(FD_MESSAGE_FDS_MAX * sizeof(int))];
};

static void take(struct fd_list *list, const struct cmsghdr *part) {
  const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  for (size_t index = 0; index < count; index++) {
    int fd;
    memcpy(&fd, CMSG_DATA(part) + index * sizeof fd, sizeof fd);
    if (list->count < FD_MESSAGE_FDS_MAX) list->fds[list->count++] = fd;
    else foreign_close(fd);
  }
}

ssize_t fd_message_receive(int fd, uint8_t *bytes, size_t room, struct fd_list *into) {
  union control control;
  struct iovec part = {.iov_base = bytes, .iov_len = room};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
  ssize_t got;
  into->count = 0;
  do {
    got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return -errno;
  for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); head != NULL; head = CMSG_NXTHDR(&message, head)) {
    if (head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) take(into, head);
  }
  into->cut = (message.msg_flags & MSG_CTRUNC) != 0;
  return got;
}

ssize_t fd_message_send(int fd, const uint8_t *bytes, size_t length, const int *fds, size_t count) {
  union control control;
  struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (count > 0) {
    memset(&control, 0, sizeof control);
    message.msg_control = control.room;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    *head = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(count * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(head), fds, count * sizeof(int));
  }
  ssize_t sent;
  do {
    sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent < 0 ? -errno : sent;
}

void fd_list_close(struct fd_list *list) {
  for (size_t index = 0; index < list->count; index++) foreign_close(list->fds[index]);
  list->count = 0;
}
