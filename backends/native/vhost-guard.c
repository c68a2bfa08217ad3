/* What happens when a front end cuts off the memory file that we have mapped: the whole mapping is replaced by zeroes
 * under our feet, and marked lost. Law: whoever touched it goes on, and asks `lost` before it believes what it saw.
 *
 * Why so, and not siglongjmp: the touch may be in the middle of JavaScript (a window, see vhost-memory.c), from which there
 * is no jumping out. Why the whole: one signal for a session, not one for each page. A seal against shrinking is not
 * demanded, since memory of /dev/shm and hugetlbfs has none; huge pages that have run out raise the same signal.
 * Shared by all threads, as signal handlers are: a table of fixed size, changed under a lock and read without. A mapping is
 * touched by the thread that made it alone, and so its guard is its own. */
#include "vhost-guard.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>

/* As many mappings as Linux gives to a process (vm.max_map_count). */
#define GUARDS_MAX 65536

struct vhost_guard {
  _Atomic uintptr_t owner; /* the thread; 0: free. Written last when it is taken, and first when it is given back */
  uintptr_t start;
  size_t length;
  atomic_int *lost;
};

static struct vhost_guard guards[GUARDS_MAX];
static atomic_int guards_used; /* as far as the table was ever in use */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct sigaction others;

/* Async-signal-safe: atomics and one system call. */
static int replaced(uintptr_t address) {
  const int used = atomic_load(&guards_used);
  for (int index = 0; index < used; index++) {
    struct vhost_guard *guard = &guards[index];
    /* Others may give theirs back, and take them for other mappings, while we look. */
    if (atomic_load(&guard->owner) != (uintptr_t)pthread_self()) continue;
    const uintptr_t start = guard->start;
    if (address < start || address - start >= guard->length) continue;
    const int flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    atomic_store(guard->lost, 1);
    return mmap((void *)start, guard->length, PROT_READ | PROT_WRITE, flags, -1, 0) != MAP_FAILED;
  }
  return 0;
}

static void on_bus_error(int signal, siginfo_t *info, void *context) {
  if (info->si_code > 0 && replaced((uintptr_t)info->si_addr)) return;
  /* Not ours: what would have happened without us. A fault comes back at once, to whom it belongs. */
  if ((others.sa_flags & SA_SIGINFO) != 0) others.sa_sigaction(signal, info, context);
  else if (others.sa_handler != SIG_DFL && others.sa_handler != SIG_IGN) others.sa_handler(signal);
  else {
    sigaction(SIGBUS, &others, NULL);
    if (info->si_code <= 0) raise(signal);
  }
}

static void install(void) {
  struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, &others);
}

struct vhost_guard *vhost_guard_add(void *start, size_t length, atomic_int *lost) {
  struct vhost_guard *guard = NULL;
  pthread_once(&once, install);
  pthread_mutex_lock(&lock);
  for (int index = 0; index < GUARDS_MAX && guard == NULL; index++) {
    if (atomic_load(&guards[index].owner) != 0) continue;
    guard = &guards[index];
    guard->start = (uintptr_t)start;
    guard->length = length;
    guard->lost = lost;
    atomic_store(&guard->owner, (uintptr_t)pthread_self());
    if (atomic_load(&guards_used) <= index) atomic_store(&guards_used, index + 1);
  }
  pthread_mutex_unlock(&lock);
  return guard;
}

void vhost_guard_remove(struct vhost_guard *guard) {
  pthread_mutex_lock(&lock);
  atomic_store(&guard->owner, 0);
  pthread_mutex_unlock(&lock);
}
