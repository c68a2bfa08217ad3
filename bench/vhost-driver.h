/* A guest with nothing but a virtio block device: memory, one split ring, and the vhost-user messages of a front end. What is
 * measured or tested through it is the back-end and no QEMU. */
#ifndef CANDOR_VHOST_DRIVER_H
#define CANDOR_VHOST_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GET_FEATURES 1
#define SET_FEATURES 2
#define SET_OWNER 3
#define SET_MEM_TABLE 5
#define SET_VRING_NUM 8
#define SET_VRING_ADDR 9
#define SET_VRING_BASE 10
#define GET_VRING_BASE 11
#define SET_VRING_KICK 12
#define SET_VRING_CALL 13
#define GET_PROTOCOL_FEATURES 15
#define SET_PROTOCOL_FEATURES 16
#define SET_VRING_ENABLE 18
#define GET_CONFIG 24

#define BLK_IN 0
#define BLK_OUT 1
#define BLK_FLUSH 4

struct driver {
  int socket, memory_fd, kick, call;
  uint8_t *memory;
  uint64_t memory_bytes, features;
  uint16_t size; /* of the ring */
  struct {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
  } *desc;
  uint16_t *avail; /* flags, idx, ring[size], used_event */
  uint8_t *used;   /* flags, idx, ring[size] of 8 bytes, avail_event */
  uint16_t avail_idx, used_idx;
  uint64_t capacity; /* sectors */
  uint8_t *free;     /* memory behind the ring */
};

void die(const char *what);
/* One message without or with one descriptor. */
void driver_send(struct driver *driver, uint32_t request, const void *payload, uint32_t bytes, int fd);
void driver_ask(struct driver *driver, uint32_t request, void *payload, uint32_t bytes);
/* Connects, negotiates, shares memory and ring; exits with a sentence where it cannot. */
void driver_open(struct driver *driver, const char *path, uint16_t size, uint64_t memory_bytes, bool event_idx);
/* A chain of descriptors that were filled in, by its head. */
void driver_offer(struct driver *driver, uint16_t head);
/* Kicks, if the back-end wants to be kicked for what was offered since `before`. */
void driver_kick(struct driver *driver, uint16_t before);
/* The head of something that was answered, or -1. */
int driver_take(struct driver *driver);
/* Waits until something is answered. */
void driver_wait(struct driver *driver);
uint64_t driver_stop(struct driver *driver);

#endif
