/* An operation on its way: from submit() to the one telling of its outcome. */
#ifndef CANDOR_IO_JOB_H
#define CANDOR_IO_JOB_H

#include <stddef.h>
#include <stdint.h>

#include "io-ops.h"

struct io_job {
  struct io_op op; /* what is left to do: the ring moves it on after a short read */
  uint32_t ticket;
  int outcome;
  struct io_job *next;
};

/* First in, first out. */
struct io_list {
  struct io_job *first, *last;
  int count;
};

static inline void io_list_append(struct io_list *list, struct io_job *job) {
  job->next = NULL;
  if (list->first == NULL) list->first = job;
  else list->last->next = job;
  list->last = job;
  list->count += 1;
}

static inline struct io_job *io_list_take(struct io_list *list) {
  struct io_job *job = list->first;
  if (job == NULL) return NULL;
  list->first = job->next;
  list->count -= 1;
  return job;
}

/* Moves all of `from` behind `list`. */
static inline void io_list_join(struct io_list *list, struct io_list *from) {
  if (from->first == NULL) return;
  if (list->first == NULL) list->first = from->first;
  else list->last->next = from->first;
  list->last = from->last;
  list->count += from->count;
  *from = (struct io_list){0};
}

#endif
