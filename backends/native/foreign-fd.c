/* Descriptors that another process handed over. Law: nobody waits for what is behind them. fstat(2), read(2) and even close(2)
 * ask the server of a FUSE file, which may be the other process itself: it may never answer, or answer what it likes. */
#include "foreign-fd.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "napi-door.h"

#define EVENT_NAME "anon_inode:[eventfd]"
/* Threads of the process that may hang in close(2), which has given the number back by then; past them descriptors stay
 * open until one of these returns. */
#define CLOSERS_MAX 64
#define CLOSER_STACK_BYTES (64 * 1024)

struct waiting {
  struct waiting *next;
  int fd;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct waiting *waiting;
static int closers;

/* Where there is no /proc, the kernel's own descriptors, which have no kind of file, have to do. */
bool foreign_is_event(int fd) {
  char path[32], name[32];
  struct stat status;
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(path, name, sizeof name);
  if (length < 0) return fstat(fd, &status) == 0 && (status.st_mode & S_IFMT) == 0;
  return (size_t)length == sizeof EVENT_NAME - 1 && memcmp(name, EVENT_NAME, sizeof EVENT_NAME - 1) == 0;
}

/* Only these have seals, or could have. */
bool foreign_is_memory(int fd) { return fcntl(fd, F_GET_SEALS) >= 0; }

static bool is_unix_socket(int fd) {
  int domain = 0;
  socklen_t size = sizeof domain;
  return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}

static void *run_closer(void *nothing) {
  (void)nothing;
  pthread_mutex_lock(&lock);
  for (struct waiting *first = waiting; first != NULL; first = waiting) {
    waiting = first->next;
    pthread_mutex_unlock(&lock);
    close(first->fd);
    free(first);
    pthread_mutex_lock(&lock);
  }
  closers -= 1;
  pthread_mutex_unlock(&lock);
  return NULL;
}

/* Called with the lock held. Without a new thread those that run, or the next one, close what waits. */
static void start_closer(void) {
  pthread_attr_t attributes;
  pthread_t thread;
  if (closers >= CLOSERS_MAX) return;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, CLOSER_STACK_BYTES);
  if (pthread_create(&thread, &attributes, run_closer, NULL) == 0) closers += 1;
  pthread_attr_destroy(&attributes);
}

void foreign_close(int fd) {
  struct waiting *last = foreign_is_memory(fd) || is_unix_socket(fd) || foreign_is_event(fd) ? NULL : malloc(sizeof *last);
  if (last == NULL) {
    close(fd);
    return;
  }
  pthread_mutex_lock(&lock);
  *last = (struct waiting){waiting, fd};
  waiting = last;
  start_closer();
  pthread_mutex_unlock(&lock);
}

/* closeForeign(fd) */
napi_value close_foreign(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  int32_t fd;
  DOOR_OK(napi_get_cb_info(env, info, &count, &argument, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, argument, &fd));
  foreign_close(fd);
  return NULL;
}

/* isMemoryFile(fd) -> 1 for a file of tmpfs, memfd or hugetlbfs. */
napi_value is_memory_file(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  int32_t fd;
  DOOR_OK(napi_get_cb_info(env, info, &count, &argument, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, argument, &fd));
  return door_int(env, foreign_is_memory(fd));
}
