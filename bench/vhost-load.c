/* Load for a vhost-user-blk back-end: a number of requests always under way, for a while; one line of JSON says how many were
 * answered. Usage: vhost-load SOCKET read|write|randread|randwrite|verify BYTES DEPTH SECONDS [segments=N] [event-idx=0|1] */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vhost-driver.h"

#define RING 256
#define DEPTH_MAX 64
#define SECTOR 512
#define NEXT 1
#define WRITE 2
#define INDIRECT 4
#define SEGMENTS_MAX 126

struct slot {
  struct {
    uint32_t type, reserved;
    uint64_t sector;
  } *header;
  uint8_t *data, *status, *table;
};

struct job {
  bool random, write, verify;
  uint32_t bytes, depth, segments;
  double seconds;
  uint64_t at, span, seed, answered, errors, wrong;
};

static struct driver driver;
static struct slot slots[DEPTH_MAX];

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static uint64_t where(struct job *job) {
  const uint64_t blocks = job->span / job->bytes;
  if (!job->random) return job->at++ % blocks;
  job->seed ^= job->seed << 13;
  job->seed ^= job->seed >> 7;
  job->seed ^= job->seed << 17;
  return job->seed % blocks;
}

/* Each sector says where it belongs. */
static void stamp(uint8_t *data, uint32_t bytes, uint64_t sector) {
  for (uint32_t at = 0; at < bytes; at += SECTOR, sector++) {
    for (uint32_t word = 0; word < SECTOR; word += 8) {
      const uint64_t value = sector * 0x9e3779b97f4a7c15ull + word;
      memcpy(data + at + word, &value, sizeof value);
    }
  }
}

static bool stamped(const uint8_t *data, uint32_t bytes, uint64_t sector) {
  static uint8_t expected[1 << 20];
  stamp(expected, bytes, sector);
  return memcmp(data, expected, bytes) == 0;
}

static uint64_t guest(const void *at) { return (uint64_t)((const uint8_t *)at - driver.memory); }

/* Pieces of data with a gap between them, so that they are not one. */
static uint8_t *piece(const struct job *job, const struct slot *slot, uint32_t index) {
  return slot->data + (size_t)index * (job->bytes / job->segments + (job->segments > 1 ? SECTOR : 0));
}

static void submit(struct job *job, uint16_t index) {
  struct slot *slot = &slots[index];
  const uint32_t part = job->bytes / job->segments;
  slot->header->type = job->write ? BLK_OUT : BLK_IN;
  slot->header->sector = where(job) * (job->bytes / SECTOR);
  *slot->status = 0xff;
  if (job->verify && job->write) {
    for (uint32_t at = 0; at < job->segments; at++) {
      stamp(piece(job, slot, at), part, slot->header->sector + (uint64_t)at * part / SECTOR);
    }
  }
  typeof(driver.desc) table = (void *)slot->table;
  uint16_t count = 0;
  table[count++] = (typeof(*table)){guest(slot->header), 16, NEXT, 1};
  for (uint32_t at = 0; at < job->segments; at++, count++) {
    const uint16_t flags = (uint16_t)(NEXT | (job->write ? 0 : WRITE));
    table[count] = (typeof(*table)){guest(piece(job, slot, at)), part, flags, (uint16_t)(count + 1)};
  }
  table[count++] = (typeof(*table)){guest(slot->status), 1, WRITE, 0};
  driver.desc[index] = (typeof(*table)){guest(slot->table), 16u * count, INDIRECT, 0};
  driver_offer(&driver, index);
}

static void finish(struct job *job, const struct slot *slot) {
  job->answered += 1;
  if (*slot->status != 0) job->errors += 1;
  else if (job->verify && !job->write) {
    const uint32_t part = job->bytes / job->segments;
    for (uint32_t at = 0; at < job->segments; at++) {
      if (!stamped(piece(job, slot, at), part, slot->header->sector + (uint64_t)at * part / SECTOR)) job->wrong += 1;
    }
  }
}

/* Until the time is over, or with `limit` until so many were submitted. */
static double run(struct job *job, uint64_t limit) {
  const double began = now();
  uint64_t submitted = 0;
  uint16_t before = driver.avail_idx;
  for (uint16_t index = 0; index < job->depth && (limit == 0 || submitted < limit); index++, submitted++) submit(job, index);
  driver_kick(&driver, before);
  for (double time = began; job->answered < submitted;) {
    before = driver.avail_idx;
    for (int head; (head = driver_take(&driver)) >= 0;) {
      finish(job, &slots[head]);
      if (limit == 0 ? time - began >= job->seconds : submitted >= limit) continue;
      submit(job, (uint16_t)head);
      submitted++;
    }
    if (driver.avail_idx != before) driver_kick(&driver, before);
    if (job->answered < submitted) driver_wait(&driver);
    time = now();
  }
  return now() - began;
}

static void lay_out(const struct job *job) {
  uint8_t *at = driver.free;
  const size_t room = job->bytes + (size_t)(job->segments > 1 ? job->segments * SECTOR : 0);
  for (uint32_t index = 0; index < job->depth; index++) {
    struct slot *slot = &slots[index];
    slot->header = (void *)at;
    slot->status = at + 64;
    slot->table = at + 128;
    slot->data = at + 4096;
    at += 4096 + ((room + 4095) & ~(size_t)4095);
    if (at > driver.memory + driver.memory_bytes) die("not enough memory for this depth");
  }
}

static uint32_t option(int argc, char **argv, const char *name, uint32_t otherwise) {
  for (int index = 6; index < argc; index++) {
    if (strncmp(argv[index], name, strlen(name)) == 0) return (uint32_t)atoi(argv[index] + strlen(name));
  }
  return otherwise;
}

int main(int argc, char **argv) {
  if (argc < 6) die("usage: vhost-load SOCKET read|write|randread|randwrite|verify BYTES DEPTH SECONDS [segments=N] [event-idx=0|1]");
  const char *kind = argv[2];
  struct job job = {.bytes = (uint32_t)atoi(argv[3]), .depth = (uint32_t)atoi(argv[4]), .seconds = atof(argv[5])};
  job.segments = option(argc, argv, "segments=", 1);
  job.verify = strcmp(kind, "verify") == 0;
  job.random = strncmp(kind, "rand", 4) == 0;
  job.write = job.verify || strstr(kind, "write") != NULL;
  job.seed = 88172645463325252ull;
  if (job.depth < 1 || job.depth > DEPTH_MAX || job.bytes < SECTOR || job.bytes > 1 << 20 || job.segments < 1 ||
      job.segments > SEGMENTS_MAX || job.bytes % (job.segments * SECTOR) != 0) {
    die("depth is 1 to 64, bytes a multiple of segments times 512, up to a mebibyte");
  }
  driver_open(&driver, argv[1], RING, 128ull << 20, option(argc, argv, "event-idx=", 1) != 0);
  job.span = driver.capacity * SECTOR;
  if (job.span < job.bytes) die("the disk is smaller than a request");
  lay_out(&job);
  double seconds = run(&job, job.verify ? job.span / job.bytes : 0);
  if (job.verify) {
    job.write = false;
    job.at = 0;
    job.answered = 0;
    seconds = run(&job, job.span / job.bytes);
  }
  const uint64_t base = driver_stop(&driver);
  printf("{\"answered\":%lu,\"errors\":%lu,\"wrong\":%lu,\"seconds\":%.3f,\"iops\":%.0f,\"base\":%lu}\n", job.answered,
         job.errors, job.wrong, seconds, (double)job.answered / seconds, base);
  return 0;
}
