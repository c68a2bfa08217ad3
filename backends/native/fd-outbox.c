/* What a socket's peer did not take at once. Law: bytes leave in the order in which they were sent, and descriptors with
 * the first byte of their message. */
#include "fd-outbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fd-message.h"
#include "foreign-fd.h"

struct fd_letter {
  struct fd_letter *next;
  size_t at, length, fds_count;
  uint8_t *bytes; /* behind the descriptors, in the same allocation */
  int fds[];
};

static void letter_close_fds(struct fd_letter *letter) {
  for (size_t index = 0; index < letter->fds_count; index++) foreign_close(letter->fds[index]);
  letter->fds_count = 0;
}

static void letter_free(struct fd_letter *letter) {
  letter_close_fds(letter);
  free(letter);
}

static int keep(struct fd_outbox *outbox, const uint8_t *bytes, size_t length, const int *fds, size_t count) {
  struct fd_letter *letter = malloc(sizeof *letter + count * sizeof *fds + length);
  if (letter == NULL) return ENOMEM;
  letter->next = NULL;
  letter->fds_count = 0;
  letter->at = 0;
  letter->length = length;
  letter->bytes = (uint8_t *)(letter->fds + count);
  memcpy(letter->bytes, bytes, length);
  for (size_t index = 0; index < count; index++) {
    const int copy = fcntl(fds[index], F_DUPFD_CLOEXEC, 3);
    if (copy < 0) {
      const int error = errno;
      letter_free(letter);
      return error;
    }
    letter->fds[letter->fds_count++] = copy;
  }
  if (outbox->first == NULL) outbox->first = letter;
  else outbox->last->next = letter;
  outbox->last = letter;
  outbox->bytes += length;
  outbox->fds += count;
  return 0;
}

int fd_outbox_send(struct fd_outbox *outbox, int fd, const uint8_t *bytes, size_t length, const int *fds, size_t count,
                   struct fd_outbox_bounds bounds) {
  if (outbox->bytes + length > bounds.bytes) return ENOBUFS;
  ssize_t sent = 0;
  if (outbox->first == NULL) {
    sent = fd_message_send(fd, bytes, length, fds, count);
    if (sent < 0 && sent != -EAGAIN) return (int)-sent;
    if (sent < 0) sent = 0;
    if ((size_t)sent == length) return 0;
  }
  const size_t fds_left = sent > 0 ? 0 : count;
  if (outbox->fds + fds_left > bounds.fds) return ENOBUFS;
  return keep(outbox, bytes + sent, length - (size_t)sent, fds, fds_left);
}

int fd_outbox_resume(struct fd_outbox *outbox, int fd) {
  for (struct fd_letter *letter; (letter = outbox->first) != NULL;) {
    const ssize_t sent =
        fd_message_send(fd, letter->bytes + letter->at, letter->length - letter->at, letter->fds, letter->fds_count);
    if (sent < 0) return (int)-sent;
    outbox->fds -= letter->fds_count;
    letter_close_fds(letter);
    letter->at += (size_t)sent;
    outbox->bytes -= (size_t)sent;
    if (letter->at < letter->length) continue;
    outbox->first = letter->next;
    letter_free(letter);
  }
  return 0;
}

void fd_outbox_clear(struct fd_outbox *outbox) {
  for (struct fd_letter *letter = outbox->first, *next; letter != NULL; letter = next) {
    next = letter->next;
    letter_free(letter);
  }
  *outbox = (struct fd_outbox){0};
}
