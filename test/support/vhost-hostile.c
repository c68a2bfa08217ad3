/* A guest, or the machine it runs in, that means harm: sessions with a vhost-user back-end that are spoilt at random, while a
 * second thread writes into rings and tables as fast as a processor can, and the memory is cut off now and then.
 * Usage: vhost-hostile SOCKET SEED SECONDS. Prints how many sessions there were, and how many of them the back-end ended. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MEMORY (1 << 20)
#define RING 16
#define AVAIL 0x1000
#define USED 0x2000
#define TABLE 0x3000
#define REQUESTS 0x4000
#define GUEST 0x40000000ull
#define USER 0x7f0000000000ull
#define FEATURES (1ull << 30 | 1ull << 32 | 1ull << 28 | 1ull << 9) /* protocol features, VERSION_1, INDIRECT_DESC, FLUSH */
#define EVENT_IDX (1ull << 29)
#define PACKED (1ull << 34)
#define PROTOCOL (1ull << 0 | 1ull << 9 | 1ull << 12) /* MQ, CONFIG, INFLIGHT_SHMFD */
#define TURNS 40

struct message {
  uint32_t request, flags, bytes;
  uint8_t payload[1024];
} __attribute__((packed));

struct scribble {
  uint8_t *memory;
  atomic_bool stop;
  uint64_t seed;
};

static uint64_t seed;
/* Whether the messages of this session are spoilt, and not only what is in the memory. */
static bool spoils;

static uint64_t next(uint64_t *from) {
  *from ^= *from << 13;
  *from ^= *from >> 7;
  *from ^= *from << 17;
  return *from;
}

static uint32_t below(uint32_t bound) { return (uint32_t)((next(&seed) >> 20) % bound); }

static uint64_t nasty(uint64_t *from) {
  static const uint64_t near[] = {0, GUEST, GUEST + MEMORY, GUEST + MEMORY - 512, USER, 1ull << 32, 1ull << 63, 0, 16, RING};
  const uint64_t value = near[(next(from) >> 20) % (sizeof near / sizeof *near)];
  return value + (next(from) >> 20) % 64 - 32;
}

/* The second processor. It faults when the memory is cut off, and goes on: the signal handler maps zeroes. */
static void *scribbler(void *argument) {
  struct scribble *scribble = argument;
  uint64_t own = scribble->seed;
  while (!atomic_load(&scribble->stop)) {
    const uint64_t choice = next(&own) >> 20;
    const uint32_t area[] = {0, AVAIL, USED, TABLE, REQUESTS, 0}, size[] = {16 * RING, 64, 160, 4096, 4096, 16 * RING};
    const uint32_t at = area[choice % 6] + (uint32_t)(choice / 6 % size[choice % 6]);
    const uint64_t value = nasty(&own);
    const size_t bytes = choice % 3 == 0 ? 8 : choice % 3 == 1 ? 4 : 2;
    memcpy(scribble->memory + at, &value, bytes);
    if (choice % 64 == 0) usleep(50);
  }
  return NULL;
}

static void on_bus_error(int signal, siginfo_t *info, void *context) {
  (void)signal, (void)context;
  void *page = (void *)((uintptr_t)info->si_addr & ~(uintptr_t)4095);
  mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static bool say(int fd, uint32_t request, const void *payload, uint32_t bytes, const int *fds, int count) {
  struct message message = {request, spoils && below(50) == 0 ? below(16) : 1, bytes, {0}};
  union {
    struct cmsghdr align;
    char room[CMSG_SPACE(16 * sizeof(int))];
  } control = {0};
  if (bytes > 0) memcpy(message.payload, payload, bytes);
  if (spoils && below(40) == 0) message.payload[below(bytes + 1)] ^= (uint8_t)(1u << below(8));
  if (spoils && below(80) == 0) message.bytes = below(3) == 0 ? (uint32_t)nasty(&seed) : below(200);
  struct iovec part = {&message, 12 + bytes};
  struct msghdr head = {.msg_iov = &part, .msg_iovlen = 1};
  if (count > 0) {
    head.msg_control = control.room;
    head.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
    *CMSG_FIRSTHDR(&head) = (struct cmsghdr){CMSG_LEN((size_t)count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(CMSG_FIRSTHDR(&head)), fds, (size_t)count * sizeof(int));
  }
  return sendmsg(fd, &head, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
}

static void say_number(int fd, uint32_t request, uint64_t number, int with) {
  say(fd, request, &number, sizeof number, &with, with >= 0);
}

/* A sound beginning, each message of which may be spoilt on its way. */
static void begin(int fd, int memory_fd, int kick, int call, uint64_t features) {
  struct {
    uint32_t count, padding;
    uint64_t guest, size, user, offset;
  } __attribute__((packed)) table = {1, 0, GUEST, MEMORY, USER, 0};
  struct {
    uint32_t index, value;
  } state = {0, RING};
  struct {
    uint32_t index, flags;
    uint64_t desc, used, avail, log;
  } addresses = {0, 0, USER, USER + USED, USER + AVAIL, 0};
  say(fd, 3, NULL, 0, NULL, 0);
  say_number(fd, 16, PROTOCOL, -1);
  say_number(fd, 2, features, -1);
  say(fd, 5, &table, sizeof table, &memory_fd, 1);
  say(fd, 8, &state, sizeof state, NULL, 0);
  state.value = features & PACKED ? 0x80008000u : 0;
  say(fd, 10, &state, sizeof state, NULL, 0);
  say(fd, 9, &addresses, sizeof addresses, NULL, 0);
  say_number(fd, 13, 0, call);
  say_number(fd, 12, 0, kick);
  state.value = 1;
  say(fd, 18, &state, sizeof state, NULL, 0);
}

static void put_request(uint8_t *memory, uint16_t index, bool packed, uint64_t *slot) {
  const uint64_t at = REQUESTS + 2048ull * index;
  const uint32_t kinds[] = {0, 1, 4, 8, 11, 13, below(20)};
  const uint32_t type = kinds[below(7)];
  const bool out = type == 1 || type == 11 || type == 13;
  struct {
    uint64_t address;
    uint32_t length;
    uint16_t low, high;
  } desc[3] = {{GUEST + at, 16, 1, 0}, {GUEST + at + 64, 1 + below(1500), (uint16_t)(1 | (out ? 0 : 2)), 0}, {GUEST + at + 32, 1, 2, 0}};
  const uint64_t sector = below(4) == 0 ? nasty(&seed) : below(64);
  memcpy(memory + at, &type, 4);
  memcpy(memory + at + 8, &sector, 8);
  for (int part = 2; part >= 0; part--) {
    const uint64_t place = packed ? (*slot + (uint64_t)part) % RING : 3ull * (index % 5) + (uint64_t)part;
    const bool wrap = (*slot + (uint64_t)part) / RING % 2 == 0;
    uint16_t flags = desc[part].low;
    if (packed) flags |= wrap ? 0x80 : 0x8000;
    desc[part].low = packed ? index : flags;
    desc[part].high = packed ? flags : (uint16_t)(place + 1);
    memcpy(memory + 16 * place, &desc[part], 16);
  }
  *slot += 3;
}

static void offer(uint8_t *memory, uint16_t head, uint16_t *avail) {
  uint16_t *ring = (uint16_t *)(memory + AVAIL);
  ring[2 + *avail % RING] = head;
  *avail += 1;
  __atomic_store_n(&ring[1], *avail, __ATOMIC_RELEASE);
}

/* Anything at all, with any descriptors. */
static void say_anything(int fd, const int *fds, int count) {
  uint8_t payload[64];
  for (size_t at = 0; at < sizeof payload; at += 8) {
    const uint64_t value = nasty(&seed);
    memcpy(payload + at, &value, 8);
  }
  int some[4];
  const int with = (int)below(4);
  for (int index = 0; index < with; index++) some[index] = fds[below((uint32_t)count)];
  say(fd, below(48), payload, below(sizeof payload), some, with);
}

static bool ended(int fd) {
  uint8_t bytes[4096];
  ssize_t got;
  while ((got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0) continue;
  return got == 0 || errno != EAGAIN;
}

/* A connection that is answered: while the former guest is not seen to have gone, the next one is turned away. */
static int attach(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  uint8_t answer[20];
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  for (int attempt = 0; attempt < 1000; attempt++, usleep(2000)) {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) break;
    if (say(fd, 1, NULL, 0, NULL, 0) && recv(fd, answer, sizeof answer, MSG_WAITALL) == sizeof answer) return fd;
    close(fd);
  }
  perror("vhost-hostile: nobody answers");
  exit(1);
}

static bool session(const char *path) {
  spoils = false;
  const int fd = attach(path), memory_fd = memfd_create("hostile", MFD_CLOEXEC);
  spoils = below(3) == 0;
  if (ftruncate(memory_fd, MEMORY) != 0) exit(1);
  const uint64_t features = FEATURES | (below(2) ? EVENT_IDX : 0) | (below(2) ? PACKED : 0);
  const int fds[] = {eventfd(0, EFD_NONBLOCK), eventfd(0, EFD_NONBLOCK), memory_fd, STDIN_FILENO, fd};
  uint8_t *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
  struct scribble scribble = {.memory = memory, .seed = seed | 1};
  pthread_t thread;
  const bool scribbles = below(2), cuts = below(6) == 0;
  bool started = false;
  uint16_t avail = 0;
  uint64_t slot = 0;
  begin(fd, memory_fd, fds[0], fds[1], features);
  for (int turn = 0; turn < TURNS && !ended(fd); turn++) {
    if (turn == 8 && scribbles) started = pthread_create(&thread, NULL, scribbler, &scribble) == 0;
    const uint16_t index = (uint16_t)below(5);
    put_request(memory, index, (features & PACKED) != 0, &slot);
    if (!(features & PACKED)) offer(memory, (uint16_t)(3 * index), &avail);
    if (spoils && below(12) == 0) say_anything(fd, fds, 5);
    if (cuts && turn == 20 && ftruncate(memory_fd, below(8) * 4096) != 0) exit(1);
    eventfd_write(fds[0], 1);
    usleep(below(3) * 200);
  }
  const bool over = ended(fd);
  /* Half of those that live on are asked for their place, the others just leave. */
  if (!over && below(2)) say_number(fd, 11, 0, -1);
  atomic_store(&scribble.stop, true);
  if (started) pthread_join(thread, NULL);
  munmap(memory, MEMORY);
  close(fd);
  for (int index = 0; index < 3; index++) close(fds[index]);
  return over;
}

int main(int argc, char **argv) {
  struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
  if (argc != 4) return 2;
  sigaction(SIGBUS, &action, NULL);
  seed = strtoull(argv[2], NULL, 10) * 2654435761u + 88172645463325252ull;
  const time_t until = time(NULL) + atoi(argv[3]);
  unsigned sessions = 0, over = 0;
  for (; time(NULL) < until; sessions++) over += session(argv[1]);
  printf("{\"sessions\":%u,\"ended\":%u}\n", sessions, over);
  return 0;
}
