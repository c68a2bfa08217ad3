/* Sets a ring up and takes it down; tries whether there can be one. The kernel's header is all that is needed. */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "io-ring-map.h"
#include "io-ring.h"

#ifdef CANDOR_HAS_IO_URING

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
    while (ring->in_flight > 0 && (io_ring_enter(ring, 0, 1) >= 0 || errno == EINTR)) io_ring_take(ring, &done, &refused);
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
void io_ring_free(struct io_ring *ring) { (void)ring; }

#endif
