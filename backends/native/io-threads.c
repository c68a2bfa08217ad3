/* Threads that run what would block. They start as the queue grows, never more than the bound.
 *
 *   push() -> queue -> thread: io_run() -> done -> wake() once -> take()
 */
#include "io-threads.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#define THREAD_STACK_BYTES (128 * 1024)

struct io_threads {
  pthread_mutex_t lock;
  pthread_cond_t work, gone;
  struct io_list queue, done;
  int threads, threads_max, idle;
  bool told; /* `wake` was called, and nobody has come yet */
  bool closing;
  void (*wake)(void *argument);
  void *argument;
};

struct io_threads *io_threads_new(int threads_max, void (*wake)(void *), void *argument) {
  struct io_threads *threads = calloc(1, sizeof *threads);
  if (threads == NULL) return NULL;
  pthread_mutex_init(&threads->lock, NULL);
  pthread_cond_init(&threads->work, NULL);
  pthread_cond_init(&threads->gone, NULL);
  threads->threads_max = threads_max;
  threads->wake = wake;
  threads->argument = argument;
  return threads;
}

static void *run_thread(void *argument) {
  struct io_threads *threads = argument;
  pthread_mutex_lock(&threads->lock);
  for (;;) {
    while (threads->queue.first == NULL && !threads->closing) {
      threads->idle += 1;
      pthread_cond_wait(&threads->work, &threads->lock);
      threads->idle -= 1;
    }
    if (threads->closing) break;
    struct io_job *job = io_list_take(&threads->queue);
    pthread_mutex_unlock(&threads->lock);
    job->outcome = io_run(&job->op);
    pthread_mutex_lock(&threads->lock);
    io_list_append(&threads->done, job);
    if (!threads->told) threads->wake(threads->argument);
    threads->told = true;
  }
  threads->threads -= 1;
  if (threads->threads == 0) pthread_cond_signal(&threads->gone);
  pthread_mutex_unlock(&threads->lock);
  return NULL;
}

/* Called with the lock held. */
static int start_thread(struct io_threads *threads) {
  pthread_attr_t attributes;
  pthread_t thread;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES);
  const int error = pthread_create(&thread, &attributes, run_thread, threads);
  pthread_attr_destroy(&attributes);
  if (error == 0) threads->threads += 1;
  return error;
}

int io_threads_push(struct io_threads *threads, struct io_list *jobs) {
  if (jobs->first == NULL) return 0;
  pthread_mutex_lock(&threads->lock);
  const int idle = threads->idle;
  int missing = threads->queue.count + jobs->count - idle;
  int error = 0;
  while (error == 0 && missing > 0 && threads->threads < threads->threads_max) {
    error = start_thread(threads);
    missing -= 1;
  }
  if (threads->threads > 0) {
    error = 0; /* fewer threads than wished for do the work as well */
    for (int wakes = jobs->count < idle ? jobs->count : idle; wakes > 0; wakes--) pthread_cond_signal(&threads->work);
    io_list_join(&threads->queue, jobs);
  }
  pthread_mutex_unlock(&threads->lock);
  return error;
}

void io_threads_take(struct io_threads *threads, struct io_list *done) {
  pthread_mutex_lock(&threads->lock);
  io_list_join(done, &threads->done);
  threads->told = false;
  pthread_mutex_unlock(&threads->lock);
}

static void free_jobs(struct io_list *jobs) {
  for (struct io_job *job; (job = io_list_take(jobs)) != NULL;) free(job);
}

void io_threads_end(struct io_threads *threads) {
  pthread_mutex_lock(&threads->lock);
  threads->closing = true;
  pthread_cond_broadcast(&threads->work);
  while (threads->threads > 0) pthread_cond_wait(&threads->gone, &threads->lock);
  pthread_mutex_unlock(&threads->lock);
  free_jobs(&threads->queue);
  free_jobs(&threads->done);
  pthread_cond_destroy(&threads->gone);
  pthread_cond_destroy(&threads->work);
  pthread_mutex_destroy(&threads->lock);
  free(threads);
}
