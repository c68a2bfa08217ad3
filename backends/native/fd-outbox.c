/* What a socket's peer did not take at once. Law: bytes leave in the order in which they were sent, and descriptors with
 * the first byte of their message. */
#include "fd-outbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fd-message.h"

struct fd_letter {
  struct fd_letter *next;
  struct fd_list fds;
  size_t at, length;
  uint8_t bytes[];
};

static void letter_free(struct fd_letter *letter) {
  fd_list_close(&letter->fds);
  free(letter);
}

static int keep(struct fd_outbox *outbox, const uint8_t *bytes, size_t length, const int *fds, size_t count) {
  struct fd_letter *letter = malloc(sizeof *letter + length);
  if (letter == NULL) return ENOMEM;
  letter->next = NULL;
  letter->fds.count = 0;
  letter->at = 0;
  letter->length = length;
  memcpy(letter->bytes, bytes, length);
  for (size_t index = 0; index < count; index++) {
    const int copy = fcntl(fds[index], F_DUPFD_CLOEXEC, 3);
    if (copy < 0) {
      const int error = errno;
      letter_free(letter);
      return error;
    }
    letter->fds.fds[letter->fds.count++] = copy;
  }
  if (outbox->first == NULL) outbox->first = letter;
  else outbox->last->next = letter;
  outbox->last = letter;
  outbox->bytes += length;
  return 0;
}

int fd_outbox_send(struct fd_outbox *outbox, int fd, const uint8_t *bytes, size_t length, const int *fds, size_t count,
                   size_t bytes_max) {
  if (outbox->bytes + length > bytes_max) return ENOBUFS;
  ssize_t sent = 0;
  if (outbox->first == NULL) {
    sent = fd_message_send(fd, bytes, length, fds, count);
    if (sent < 0 && sent != -EAGAIN) return (int)-sent;
    if (sent < 0) sent = 0;
    if ((size_t)sent == length) return 0;
  }
  return keep(outbox, bytes + sent, length - (size_t)sent, fds, sent > 0 ? 0 : count);
}

int fd_outbox_resume(struct fd_outbox *outbox, int fd) {
  for (struct fd_letter *letter; (letter = outbox->first) != NULL;) {
    const ssize_t sent =
        fd_message_send(fd, letter->bytes + letter->at, letter->length - letter->at, letter->fds.fds, letter->fds.count);
    if (sent < 0) return (int)-sent;
    fd_list_close(&letter->fds);
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
