/* The driver's side of virtio 1.2 (2.7, 5.2) and the front end's of vhost-user. It trusts the back-end: it is a measure. */
#include "vhost-driver.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PROTOCOL_FEATURES (1ull << 30)
#define VERSION_1 (1ull << 32)
#define INDIRECT_DESC (1ull << 28)
#define EVENT_IDX (1ull << 29)
#define BLK_F_FLUSH (1ull << 9)
#define PROTOCOL_MQ (1ull << 0)
#define PROTOCOL_CONFIG (1ull << 9)
#define ENABLED_MESSAGE 1
#define WAIT_MS 30000

struct message {
  uint32_t request, flags, bytes;
  uint8_t payload[512];
} __attribute__((packed));

void die(const char *what) {
  fprintf(stderr, "vhost-load: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
  exit(1);
}

void driver_send(struct driver *driver, uint32_t request, const void *payload, uint32_t bytes, int fd) {
  struct message message = {request, 1, bytes, {0}};
  union {
    struct cmsghdr align;
    char room[CMSG_SPACE(sizeof(int))];
  } control = {0};
  struct iovec part = {&message, 12 + bytes};
  struct msghdr head = {.msg_iov = &part, .msg_iovlen = 1};
  if (bytes > 0) memcpy(message.payload, payload, bytes);
  if (fd >= 0) {
    head.msg_control = control.room;
    head.msg_controllen = sizeof control.room;
    *CMSG_FIRSTHDR(&head) = (struct cmsghdr){CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(CMSG_FIRSTHDR(&head)), &fd, sizeof fd);
  }
  if (sendmsg(driver->socket, &head, MSG_NOSIGNAL) != (ssize_t)part.iov_len) die("the back-end takes no message");
}

static void receive(struct driver *driver, void *into, size_t bytes) {
  errno = 0;
  if (recv(driver->socket, into, bytes, MSG_WAITALL) != (ssize_t)bytes) die("the back-end hung up");
}

void driver_ask(struct driver *driver, uint32_t request, void *payload, uint32_t bytes) {
  struct message answer;
  driver_send(driver, request, payload, bytes, -1);
  receive(driver, &answer, 12);
  if (answer.bytes > sizeof answer.payload) die("the back-end's answer is too long");
  receive(driver, answer.payload, answer.bytes);
  if (answer.request != request) die("the back-end answers something else");
  memcpy(payload, answer.payload, answer.bytes < bytes ? answer.bytes : bytes);
}

static uint64_t ask_number(struct driver *driver, uint32_t request) {
  uint64_t number = 0;
  struct message answer;
  driver_send(driver, request, NULL, 0, -1);
  receive(driver, &answer, 12 + sizeof number);
  memcpy(&number, answer.payload, sizeof number);
  return number;
}

static void negotiate(struct driver *driver, bool event_idx) {
  driver_send(driver, SET_OWNER, NULL, 0, -1);
  const uint64_t offered = ask_number(driver, GET_FEATURES);
  if (!(offered & PROTOCOL_FEATURES) || !(offered & VERSION_1)) die("the back-end offers too little");
  uint64_t wanted = ask_number(driver, GET_PROTOCOL_FEATURES) & (PROTOCOL_MQ | PROTOCOL_CONFIG);
  if (!(wanted & PROTOCOL_CONFIG)) die("the back-end has no configuration space");
  driver_send(driver, SET_PROTOCOL_FEATURES, &wanted, sizeof wanted, -1);
  struct {
    uint32_t offset, size, flags;
    uint8_t bytes[60];
  } __attribute__((packed)) config = {0, 60, 0, {0}};
  driver_ask(driver, GET_CONFIG, &config, sizeof config);
  memcpy(&driver->capacity, config.bytes, sizeof driver->capacity);
  driver->features = offered & (PROTOCOL_FEATURES | VERSION_1 | INDIRECT_DESC | BLK_F_FLUSH | (event_idx ? EVENT_IDX : 0));
  driver_send(driver, SET_FEATURES, &driver->features, sizeof driver->features, -1);
}

static void share_memory(struct driver *driver) {
  driver->memory_fd = memfd_create("vhost-load", MFD_CLOEXEC);
  if (driver->memory_fd < 0 || ftruncate(driver->memory_fd, (off_t)driver->memory_bytes) != 0) die("memory");
  driver->memory =
      mmap(NULL, driver->memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, driver->memory_fd, 0);
  if (driver->memory == MAP_FAILED) die("memory");
  struct {
    uint32_t count, padding;
    uint64_t guest, size, user, offset;
  } __attribute__((packed)) table = {1, 0, 0, driver->memory_bytes, (uintptr_t)driver->memory, 0};
  driver_send(driver, SET_MEM_TABLE, &table, sizeof table, driver->memory_fd);
}

static void share_ring(struct driver *driver) {
  const size_t size = driver->size;
  driver->desc = (void *)driver->memory;
  driver->avail = (uint16_t *)(driver->memory + 16 * size);
  driver->used = driver->memory + ((16 * size + 6 + 2 * size + 63) & ~(size_t)63);
  driver->free = driver->memory + ((16 * size + 6 + 2 * size + 64 + 6 + 8 * size + 4095) & ~(size_t)4095);
  struct {
    uint32_t index, value;
  } state = {0, driver->size};
  struct {
    uint32_t index, flags;
    uint64_t desc, used, avail, log;
  } addresses = {0, 0, (uintptr_t)driver->desc, (uintptr_t)driver->used, (uintptr_t)driver->avail, 0};
  const uint64_t index = 0;
  driver->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  driver->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  driver_send(driver, SET_VRING_NUM, &state, sizeof state, -1);
  state.value = 0;
  driver_send(driver, SET_VRING_BASE, &state, sizeof state, -1);
  driver_send(driver, SET_VRING_ADDR, &addresses, sizeof addresses, -1);
  driver_send(driver, SET_VRING_CALL, &index, sizeof index, driver->call);
  driver_send(driver, SET_VRING_KICK, &index, sizeof index, driver->kick);
  state.value = ENABLED_MESSAGE;
  driver_send(driver, SET_VRING_ENABLE, &state, sizeof state, -1);
}

void driver_open(struct driver *driver, const char *path, uint16_t size, uint64_t memory_bytes, bool event_idx) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  *driver = (struct driver){.size = size, .memory_bytes = memory_bytes};
  if (strlen(path) >= sizeof address.sun_path) die("the path of the socket is too long");
  strcpy(address.sun_path, path);
  driver->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(driver->socket, (struct sockaddr *)&address, sizeof address) != 0) die(path);
  negotiate(driver, event_idx);
  share_memory(driver);
  share_ring(driver);
}

void driver_offer(struct driver *driver, uint16_t head) {
  driver->avail[2 + driver->avail_idx % driver->size] = head;
  driver->avail_idx += 1;
  __atomic_store_n(&driver->avail[1], driver->avail_idx, __ATOMIC_RELEASE);
}

void driver_kick(struct driver *driver, uint16_t before) {
  const uint64_t one = 1;
  bool wanted;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (driver->features & EVENT_IDX) {
    const uint16_t event = *(volatile uint16_t *)(driver->used + 4 + 8 * driver->size);
    wanted = (uint16_t)(driver->avail_idx - event - 1) < (uint16_t)(driver->avail_idx - before);
  } else {
    wanted = (*(volatile uint16_t *)driver->used & 1) == 0;
  }
  if (wanted && write(driver->kick, &one, sizeof one) != sizeof one) die("kick");
}

int driver_take(struct driver *driver) {
  const uint16_t now = __atomic_load_n((uint16_t *)(driver->used + 2), __ATOMIC_ACQUIRE);
  if (now == driver->used_idx) return -1;
  uint32_t head;
  memcpy(&head, driver->used + 4 + 8 * (driver->used_idx % driver->size), sizeof head);
  driver->used_idx += 1;
  return (int)head;
}

void driver_wait(struct driver *driver) {
  uint64_t times;
  struct pollfd wait = {.fd = driver->call, .events = POLLIN};
  driver->avail[2 + driver->size] = driver->used_idx;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (__atomic_load_n((uint16_t *)(driver->used + 2), __ATOMIC_ACQUIRE) != driver->used_idx) return;
  errno = 0;
  if (poll(&wait, 1, WAIT_MS) <= 0) die("no answer in half a minute");
  if (read(driver->call, &times, sizeof times) < 0 && errno != EAGAIN) die("call");
}

uint64_t driver_stop(struct driver *driver) {
  struct {
    uint32_t index, value;
  } state = {0, 0};
  driver_ask(driver, GET_VRING_BASE, &state, sizeof state);
  return state.value;
}
