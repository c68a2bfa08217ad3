/* The ring by its system calls alone (io_uring_enter(2)). Law: a job's bytes belong to the kernel from submit until its
 * completion was taken. */
#include "io-ring.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "io-ring-map.h"

#ifdef CANDOR_HAS_IO_URING

int io_ring_fd(const struct io_ring *ring) { return ring->event; }

int io_ring_queued(const struct io_ring *ring) { return ring->queued.count; }

void io_ring_push(struct io_ring *ring, struct io_job *job) { io_list_append(&ring->queued, job); }

static void fill(struct io_uring_sqe *entry, struct io_job *job) {
  memset(entry, 0, sizeof *entry);
  entry->opcode = IORING_OP_READ;
  entry->fd = job->op.fd;
  entry->addr = (uint64_t)(uintptr_t)job->op.bytes;
  entry->len = (uint32_t)job->op.length;
  entry->off = (uint64_t)job->op.offset;
  entry->user_data = (uint64_t)(uintptr_t)job;
}

/* Gives `count` filled entries to the kernel; returns how many it took. Nothing else moves the tail, so that what was
 * not taken can be called back. */
static unsigned give(struct io_ring *ring, unsigned tail, unsigned count) {
  unsigned given = 0;
  __atomic_store_n(ring->submit_tail, tail + count, __ATOMIC_RELEASE);
  while (given < count) {
    const int taken = io_ring_enter(ring, count - given, 0);
    if (taken < 0 && errno == EINTR) continue;
    if (taken <= 0) break;
    given += (unsigned)taken;
  }
  __atomic_store_n(ring->submit_tail, tail + given, __ATOMIC_RELEASE);
  return given;
}

void io_ring_submit(struct io_ring *ring, struct io_list *refused) {
  while (ring->queued.first != NULL && ring->in_flight < ring->completions) {
    struct io_list batch = {0};
    const unsigned tail = *ring->submit_tail;
    while (ring->queued.first != NULL && (unsigned)batch.count < ring->submissions &&
           ring->in_flight + (unsigned)batch.count < ring->completions) {
      struct io_job *job = io_list_take(&ring->queued);
      fill(&ring->entries[(tail + (unsigned)batch.count) & ring->submit_mask], job);
      io_list_append(&batch, job);
    }
    unsigned given = give(ring, tail, (unsigned)batch.count);
    ring->in_flight += given;
    while (given > 0) {
      io_list_take(&batch);
      given -= 1;
    }
    if (batch.first == NULL) continue;
    io_list_join(refused, &batch);
    return;
  }
}

/* Whether the job is done; if not, what is left of it is queued again or refused. */
static bool settle(struct io_ring *ring, struct io_job *job, int result, struct io_list *refused) {
  if (result == -EAGAIN || result == -EINTR || result == -ECANCELED) {
    io_list_append(refused, job);
    return false;
  }
  if (result <= 0) {
    job->outcome = result == 0 ? EIO : -result; /* the file ends here: missing data is an error, never invented zeroes */
    return true;
  }
  job->op.bytes += result;
  job->op.offset += result;
  job->op.length -= result;
  job->outcome = 0;
  if (job->op.length == 0) return true;
  io_list_append(&ring->queued, job);
  return false;
}

void io_ring_take(struct io_ring *ring, struct io_list *done, struct io_list *refused) {
  uint64_t events;
  unsigned head = *ring->done_head;
  if (read(ring->event, &events, sizeof events) < 0 && errno != EAGAIN) return;
  /* Always, also when there are completions already: the kernel tells of work that waits for us to ask when it is the
   * first, and having heard of it we are not told again. */
  io_ring_enter(ring, 0, 0);
  const unsigned tail = __atomic_load_n(ring->done_tail, __ATOMIC_ACQUIRE);
  for (; head != tail; head++) {
    const struct io_uring_cqe *result = &ring->results[head & ring->done_mask];
    struct io_job *job = (struct io_job *)(uintptr_t)result->user_data;
    ring->in_flight -= 1;
    if (settle(ring, job, result->res, refused)) io_list_append(done, job);
  }
  __atomic_store_n(ring->done_head, head, __ATOMIC_RELEASE);
}

static void free_jobs(struct io_list *jobs) {
  for (struct io_job *job; (job = io_list_take(jobs)) != NULL;) free(job);
}

void io_ring_drain(struct io_ring *ring) {
  struct io_list gone = {0};
  while (ring->in_flight > 0) {
    if (io_ring_enter(ring, 0, 1) < 0 && errno != EINTR) break;
    io_ring_take(ring, &gone, &gone);
  }
  free_jobs(&gone);
  free_jobs(&ring->queued);
}

#else

int io_ring_fd(const struct io_ring *ring) { (void)ring; return -1; }
int io_ring_queued(const struct io_ring *ring) { (void)ring; return 0; }
void io_ring_push(struct io_ring *ring, struct io_job *job) { (void)ring, (void)job; }
void io_ring_submit(struct io_ring *ring, struct io_list *refused) { (void)ring, (void)refused; }
void io_ring_take(struct io_ring *ring, struct io_list *done, struct io_list *refused) {
  (void)ring, (void)done, (void)refused;
}
void io_ring_drain(struct io_ring *ring) { (void)ring; }

#endif
