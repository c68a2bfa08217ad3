/* Threads for I/O that may block: one set for each device, so that no device waits for another. */
#ifndef CANDOR_IO_THREADS_H
#define CANDOR_IO_THREADS_H

#include "io-job.h"

struct io_threads;

/* `wake` is called in some thread when there are completions to take and nobody was told yet. NULL: no memory. */
struct io_threads *io_threads_new(int threads_max, void (*wake)(void *argument), void *argument);

/* Takes all jobs of the list over; or, when there is no thread at all to do the work, none, and returns an errno. */
int io_threads_push(struct io_threads *threads, struct io_list *jobs);

/* Moves what was completed behind `done`, in the order in which it came. */
void io_threads_take(struct io_threads *threads, struct io_list *done);

/* Drops what no thread has begun, waits for the others, and frees all. Afterwards nobody touches any job's bytes. */
void io_threads_end(struct io_threads *threads);

#endif
