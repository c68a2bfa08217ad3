/* The ring by its system calls alone (io_uring_setup(2), io_uring_enter(2)): the kernel's header is all it needs.
 * Law: a job's bytes belong to the kernel from submit until its completion was taken. */
#include "io-ring.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__has_include) && __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#endif

/* The header has IORING_OP_READ, an enumerator, since the version that has this macro (Linux 5.6). */
#if defined(SYS_io_uring_setup) && defined(IORING_FEAT_RW_CUR_POS)

/* Later parts of the interface, by their numbers where the header is older than the kernel. */
#ifndef IORING_FEAT_EXT_ARG
#define IORING_FEAT_EXT_ARG (1U << 8)
#endif
#ifndef IORING_SETUP_COOP_TASKRUN
#define IORING_SETUP_COOP_TASKRUN (1U << 8)
#endif
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

#define SUBMISSIONS 256
/* What the kernel has at a time; a completion for each has its place. */
#define COMPLETIONS 1024

/* Linux 5.11, the first with all that is used here: no completion is dropped, buffered reads need no thread. */
#define FEATURES_NEEDED (IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG)

struct io_ring {
  int fd;
  int event; /* the ring's own descriptor does not tell of completions that wait for us to ask */
  void *map;
  size_t map_bytes, entry_bytes;
  unsigned *submit_tail, *done_head, *done_tail;
  unsigned submit_mask, submissions, done_mask, completions;
  struct io_uring_sqe *entries;
  struct io_uring_cqe *results;
  struct io_list queued;
  unsigned in_flight;
};

static int enter(int fd, unsigned count, unsigned wait_for) {
  return (int)syscall(SYS_io_uring_enter, fd, count, wait_for, IORING_ENTER_GETEVENTS, NULL, 0);
}

/* The best that this kernel offers: completions that wait for us to ask, then those that interrupt nobody, then any. */
static int set_up(struct io_uring_params *params) {
  static const unsigned attempts[] = {
      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, IORING_SETUP_COOP_TASKRUN, 0};
  for (size_t index = 0; index < sizeof attempts / sizeof *attempts; index++) {
    memset(params, 0, sizeof *params);
    params->flags = attempts[index] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    params->cq_entries = COMPLETIONS;
    const int fd = (int)syscall(SYS_io_uring_setup, SUBMISSIONS, params);
    if (fd >= 0 || errno != EINVAL) return fd;
  }
  return -1;
}

static bool watch(struct io_ring *ring) {
  ring->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return ring->event >= 0 &&
         syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_EVENTFD, &ring->event, 1) == 0;
}

static bool map_ring(struct io_ring *ring, const struct io_uring_params *params) {
  const size_t submit_bytes = params->sq_off.array + params->sq_entries * sizeof(unsigned);
  const size_t done_bytes = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
  const int flags = MAP_SHARED | MAP_POPULATE;
  ring->map_bytes = submit_bytes > done_bytes ? submit_bytes : done_bytes;
  ring->entry_bytes = params->sq_entries * sizeof(struct io_uring_sqe);
  ring->map = mmap(NULL, ring->map_bytes, PROT_READ | PROT_WRITE, flags, ring->fd, IORING_OFF_SQ_RING);
  if (ring->map == MAP_FAILED) return false;
  ring->entries = mmap(NULL, ring->entry_bytes, PROT_READ | PROT_WRITE, flags, ring->fd, IORING_OFF_SQES);
  if (ring->entries == MAP_FAILED) return false;
  uint8_t *base = ring->map;
  ring->submit_tail = (unsigned *)(void *)(base + params->sq_off.tail);
  ring->done_head = (unsigned *)(void *)(base + params->cq_off.head);
  ring->done_tail = (unsigned *)(void *)(base + params->cq_off.tail);
  ring->results = (struct io_uring_cqe *)(void *)(base + params->cq_off.cqes);
  ring->submissions = params->sq_entries;
  ring->submit_mask = params->sq_entries - 1;
  ring->completions = params->cq_entries;
  ring->done_mask = params->cq_entries - 1;
  unsigned *array = (unsigned *)(void *)(base + params->sq_off.array);
  for (unsigned index = 0; index < params->sq_entries; index++) array[index] = index;
  return true;
}

void io_ring_free(struct io_ring *ring) {
  if (ring->entries != NULL && (void *)ring->entries != MAP_FAILED) munmap(ring->entries, ring->entry_bytes);
  if (ring->map != NULL && ring->map != MAP_FAILED) munmap(ring->map, ring->map_bytes);
  if (ring->fd >= 0) close(ring->fd);
  if (ring->event >= 0) close(ring->event);
  free(ring);
}

struct io_ring *io_ring_new(int *error) {
  struct io_uring_params params;
  struct io_ring *ring = calloc(1, sizeof *ring);
  if (ring == NULL) {
    *error = ENOMEM;
    return NULL;
  }
  ring->event = -1;
  ring->fd = set_up(&params);
  if (ring->fd >= 0 && (params.features & FEATURES_NEEDED) != FEATURES_NEEDED) errno = ENOSYS;
  else if (ring->fd >= 0 && map_ring(ring, &params) && watch(ring)) return ring;
  *error = errno;
  io_ring_free(ring);
  return NULL;
}

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
    const int taken = enter(ring->fd, count - given, 0);
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
  enter(ring->fd, 0, 0);
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
    if (enter(ring->fd, 0, 1) < 0 && errno != EINTR) break;
    io_ring_take(ring, &gone, &gone);
  }
  free_jobs(&gone);
  free_jobs(&ring->queued);
}

int io_ring_probe(void) {
  uint8_t byte;
  int error = 0;
  struct io_list done = {0}, refused = {0};
  struct io_job job = {.op = {.kind = IO_READ, .bytes = &byte, .length = 1}};
  struct io_ring *ring = io_ring_new(&error);
  if (ring == NULL) return error;
  job.op.fd = (int)syscall(SYS_memfd_create, "candor-probe", 1U);
  error = job.op.fd >= 0 && ftruncate(job.op.fd, 1) == 0 ? 0 : errno;
  if (error == 0) {
    io_ring_push(ring, &job);
    io_ring_submit(ring, &refused);
    /* The byte lies on this stack: leaving it to the kernel is out of the question. */
    while (ring->in_flight > 0 && (enter(ring->fd, 0, 1) >= 0 || errno == EINTR)) io_ring_take(ring, &done, &refused);
    error = done.first == &job ? job.outcome : EPERM;
  }
  if (job.op.fd >= 0) close(job.op.fd);
  io_ring_free(ring);
  return error;
}

#else

int io_ring_probe(void) { return ENOSYS; }
struct io_ring *io_ring_new(int *error) {
  *error = ENOSYS;
  return NULL;
}
int io_ring_fd(const struct io_ring *ring) { (void)ring; return -1; }
int io_ring_queued(const struct io_ring *ring) { (void)ring; return 0; }
void io_ring_push(struct io_ring *ring, struct io_job *job) { (void)ring, (void)job; }
void io_ring_submit(struct io_ring *ring, struct io_list *refused) { (void)ring, (void)refused; }
void io_ring_take(struct io_ring *ring, struct io_list *done, struct io_list *refused) {
  (void)ring, (void)done, (void)refused;
}
void io_ring_drain(struct io_ring *ring) { (void)ring; }
void io_ring_free(struct io_ring *ring) { (void)ring; }

#endif
