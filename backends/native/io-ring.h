/* An io_uring(7) of one device for reads that miss the page cache: many are given to the kernel in one call, and no
 * thread sleeps for any of them. Used by the thread that made it, and by no other. */
#ifndef CANDOR_IO_RING_H
#define CANDOR_IO_RING_H

#include "io-job.h"

struct io_ring;

/* Why there can be no ring here (EPERM, ENOSYS, …); 0 when one was made, has read a byte, and was closed again. */
int io_ring_probe(void);

/* NULL: none can be had; `error` says why. */
struct io_ring *io_ring_new(int *error);

/* Readable when there may be completions to take. */
int io_ring_fd(const struct io_ring *ring);

/* Queues a read for the next submit. */
void io_ring_push(struct io_ring *ring, struct io_job *job);

/* Reads queued and not yet given to the kernel. */
int io_ring_queued(const struct io_ring *ring);

/* Gives to the kernel what is queued, in one call. What it does not take goes to `refused`, for threads to do. */
void io_ring_submit(struct io_ring *ring, struct io_list *refused);

/* Moves what is done behind `done`, and what the kernel would rather have done by a thread behind `refused`. */
void io_ring_take(struct io_ring *ring, struct io_list *done, struct io_list *refused);

/* Drops what is queued and waits for the rest: afterwards the kernel touches no job's bytes any more. */
void io_ring_drain(struct io_ring *ring);

/* Frees a ring that has nothing in flight. */
void io_ring_free(struct io_ring *ring);

#endif
