/* A thread that carries secured connections. Law: it never waits for one of them; it ends when it is told to, and what it carries
 * with it. */
#include "tls-threads.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_MAX 64
/* How often it is looked whether clients take their last replies. */
#define LOOK_MS 250
#define THREAD_STACK_BYTES (256 * 1024)
/* What comes again at once is waited for awake: to fall asleep and to be woken takes longer, and the client would wait for it. */
#define AWAKE_NS 20000

struct tls_thread {
  pthread_t thread;
  int epoll, bell;
  pthread_mutex_t lock;
  struct tls_tunnel *arrived; /* by `next`; the lock's */
  struct tls_tunnel *first;   /* those it carries */
  struct tls_tunnel *ready;   /* those with something to do, by `next_ready` */
  bool lingers;               /* some of them may have a deadline */
  int64_t looked_ms;
  bool stays_awake; /* the last wait was a short one */
  struct tls_pieces pieces;
  atomic_int count; /* those it carries, and those that have arrived */
  atomic_bool ending;
};

static int64_t now_ms(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
  return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static void make_ready(struct tls_thread *thread, struct tls_tunnel *tunnel) {
  if (tunnel->is_ready) return;
  tunnel->is_ready = true;
  tunnel->next_ready = thread->ready;
  thread->ready = tunnel;
}

static void end_tunnel(struct tls_thread *thread, struct tls_tunnel *tunnel) {
  if (tunnel->previous != NULL) tunnel->previous->next = tunnel->next;
  else thread->first = tunnel->next;
  if (tunnel->next != NULL) tunnel->next->previous = tunnel->previous;
  /* Closing is not enough: a child between fork and exec has them open, too, and epoll would tell of a tunnel that is gone. */
  epoll_ctl(thread->epoll, EPOLL_CTL_DEL, tunnel->client, NULL);
  epoll_ctl(thread->epoll, EPOLL_CTL_DEL, tunnel->plain, NULL);
  tls_tunnel_free(tunnel);
  atomic_fetch_sub(&thread->count, 1);
}

/* epoll tells the two descriptors of a tunnel apart by the lowest bit of its address. */
static bool watch(struct tls_thread *thread, struct tls_tunnel *tunnel) {
  const uint32_t events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  struct epoll_event client = {.events = events, .data.u64 = (uintptr_t)tunnel};
  struct epoll_event plain = {.events = events, .data.u64 = (uintptr_t)tunnel | 1};
  return epoll_ctl(thread->epoll, EPOLL_CTL_ADD, tunnel->client, &client) == 0 &&
         epoll_ctl(thread->epoll, EPOLL_CTL_ADD, tunnel->plain, &plain) == 0;
}

static void welcome(struct tls_thread *thread) {
  uint64_t rings;
  if (read(thread->bell, &rings, sizeof rings) < 0) return;
  pthread_mutex_lock(&thread->lock);
  struct tls_tunnel *tunnel = thread->arrived;
  thread->arrived = NULL;
  pthread_mutex_unlock(&thread->lock);
  while (tunnel != NULL) {
    struct tls_tunnel *next = tunnel->next;
    tunnel->pieces = &thread->pieces;
    tunnel->previous = NULL;
    tunnel->next = thread->first;
    if (thread->first != NULL) thread->first->previous = tunnel;
    thread->first = tunnel;
    if (watch(thread, tunnel)) make_ready(thread, tunnel);
    else end_tunnel(thread, tunnel);
    tunnel = next;
  }
}

static void hear(struct tls_thread *thread, const struct epoll_event *event) {
  if (event->data.u64 == 0) return welcome(thread);
  struct tls_tunnel *tunnel = (struct tls_tunnel *)(uintptr_t)(event->data.u64 & ~(uint64_t)1);
  const bool of_plain = (event->data.u64 & 1) != 0;
  const bool reads = (event->events & ~(uint32_t)EPOLLOUT) != 0;
  const bool hung_up = (event->events & (EPOLLHUP | EPOLLERR)) != 0;
  const bool ends = hung_up || (event->events & EPOLLRDHUP) != 0;
  if (reads) *(of_plain ? &tunnel->plain_drained : &tunnel->client_drained) = false;
  if (ends) *(of_plain ? &tunnel->plain_ends : &tunnel->client_ends) = true;
  if (hung_up) *(of_plain ? &tunnel->plain_closed : &tunnel->client_gone) = true;
  make_ready(thread, tunnel);
}

static void take_turns(struct tls_thread *thread) {
  struct tls_tunnel *tunnel = thread->ready;
  thread->ready = NULL;
  while (tunnel != NULL) {
    struct tls_tunnel *next = tunnel->next_ready;
    tunnel->is_ready = false;
    const int64_t now = now_ms();
    const enum tls_turn turn = tls_tunnel_turn(tunnel, now);
    const bool is_late = tunnel->deadline_ms != 0 && now >= tunnel->deadline_ms;
    if (tunnel->deadline_ms != 0) thread->lingers = true;
    /* From a client that is gone nothing more will come, and nothing of what waits can be of use to it. */
    if (turn == TLS_IS_OVER || is_late || (turn == TLS_RESTS && tunnel->client_gone)) end_tunnel(thread, tunnel);
    else if (turn == TLS_GOES_ON) make_ready(thread, tunnel);
    tunnel = next;
  }
}

static void look(struct tls_thread *thread) {
  const int64_t now = now_ms();
  if (!thread->lingers || now - thread->looked_ms < LOOK_MS) return;
  thread->looked_ms = now;
  thread->lingers = false;
  for (struct tls_tunnel *tunnel = thread->first, *next; tunnel != NULL; tunnel = next) {
    next = tunnel->next;
    if (tunnel->deadline_ms == 0) continue;
    thread->lingers = true;
    if (now >= tunnel->deadline_ms && !tunnel->is_ready) end_tunnel(thread, tunnel);
  }
}

static int64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int wait_awake(struct tls_thread *thread, struct epoll_event *events) {
  const int64_t until = now_ns() + AWAKE_NS;
  int count;
  while ((count = epoll_wait(thread->epoll, events, EVENTS_MAX, 0)) == 0 && now_ns() < until) sched_yield();
  return count;
}

static int wait_for(struct tls_thread *thread, struct epoll_event *events) {
  if (thread->ready != NULL) return epoll_wait(thread->epoll, events, EVENTS_MAX, 0);
  const int count = thread->stays_awake ? wait_awake(thread, events) : 0;
  if (count != 0) return count;
  const int64_t began = now_ns();
  const int woken = epoll_wait(thread->epoll, events, EVENTS_MAX, thread->lingers ? LOOK_MS : -1);
  thread->stays_awake = woken > 0 && now_ns() - began < 2 * AWAKE_NS;
  return woken;
}

static void *run(void *argument) {
  struct tls_thread *thread = argument;
  struct epoll_event events[EVENTS_MAX];
  while (!atomic_load(&thread->ending)) {
    const int count = wait_for(thread, events);
    for (int at = 0; at < count; at++) hear(thread, &events[at]);
    take_turns(thread);
    look(thread);
  }
  while (thread->first != NULL) end_tunnel(thread, thread->first);
  tls_pieces_free(&thread->pieces);
  return NULL;
}

static void ring(struct tls_thread *thread) {
  const uint64_t once = 1;
  if (write(thread->bell, &once, sizeof once) < 0) return; /* it rings already */
}

/* Signals are the event loop's. */
static int start(struct tls_thread *thread) {
  pthread_attr_t attributes;
  sigset_t every, before;
  sigfillset(&every);
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES);
  pthread_sigmask(SIG_SETMASK, &every, &before);
  const int error = pthread_create(&thread->thread, &attributes, run, thread);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  return error;
}

struct tls_thread *tls_thread_start(void) {
  struct tls_thread *thread = calloc(1, sizeof *thread);
  if (thread == NULL) return NULL;
  thread->epoll = epoll_create1(EPOLL_CLOEXEC);
  thread->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  pthread_mutex_init(&thread->lock, NULL);
  struct epoll_event bell = {.events = EPOLLIN};
  int error = thread->epoll < 0 || thread->bell < 0 ? errno : 0;
  if (error == 0 && epoll_ctl(thread->epoll, EPOLL_CTL_ADD, thread->bell, &bell) != 0) error = errno;
  if (error == 0) error = start(thread);
  if (error == 0) return thread;
  if (thread->epoll >= 0) close(thread->epoll);
  if (thread->bell >= 0) close(thread->bell);
  free(thread);
  errno = error;
  return NULL;
}

int tls_thread_load(const struct tls_thread *thread) { return atomic_load(&thread->count); }

void tls_thread_carry(struct tls_thread *thread, struct tls_tunnel *tunnel) {
  atomic_fetch_add(&thread->count, 1);
  pthread_mutex_lock(&thread->lock);
  tunnel->next = thread->arrived;
  thread->arrived = tunnel;
  pthread_mutex_unlock(&thread->lock);
  ring(thread);
}

void tls_thread_end(struct tls_thread *thread) {
  atomic_store(&thread->ending, true);
  ring(thread);
  pthread_join(thread->thread, NULL);
}
