/* What a socket's peer did not take at once: bytes in order, with the descriptors that go with some of them. */
#ifndef CANDOR_FD_OUTBOX_H
#define CANDOR_FD_OUTBOX_H

#include <stddef.h>
#include <stdint.h>

struct fd_letter;

struct fd_outbox {
  struct fd_letter *first, *last;
  size_t bytes, fds;
};

/* What may be kept. */
struct fd_outbox_bounds {
  size_t bytes, fds;
};

/* Sends now what can be sent, in order, and keeps the rest: copies of the bytes, duplicates of the descriptors.
 * 0 or an errno; ENOBUFS when more than the bounds allow would be kept. After an errno nothing of this call is kept, and
 * nothing was sent unless the socket is broken. */
int fd_outbox_send(struct fd_outbox *outbox, int fd, const uint8_t *bytes, size_t length, const int *fds, size_t count,
                   struct fd_outbox_bounds bounds);
/* Goes on with what was kept: 0 or an errno, EAGAIN while some is left. */
int fd_outbox_resume(struct fd_outbox *outbox, int fd);
void fd_outbox_clear(struct fd_outbox *outbox);

#endif
