/* Bytes and descriptors through a Unix stream socket, one call at a time. */
#ifndef CANDOR_FD_MESSAGE_H
#define CANDOR_FD_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* SCM_MAX_FD of the kernel: no piece of a stream carries more. */
#define FD_MESSAGE_FDS_MAX 253

struct fd_list {
  int fds[FD_MESSAGE_FDS_MAX];
  size_t count;
  bool cut; /* the kernel could not hand over all: this process has no room for more descriptors */
};

/* recvmsg(2), close-on-exec, without waiting: bytes, 0 at the end of the stream, or minus errno. */
ssize_t fd_message_receive(int fd, uint8_t *bytes, size_t room, struct fd_list *into);
/* sendmsg(2) without waiting: bytes taken, or minus errno. The descriptors go with the first byte. */
ssize_t fd_message_send(int fd, const uint8_t *bytes, size_t length, const int *fds, size_t count);
void fd_list_close(struct fd_list *list);

#endif
