/* One request of a guest: a chain of descriptors, checked, as pieces of its memory. */
#ifndef CANDOR_VHOST_CHAIN_H
#define CANDOR_VHOST_CHAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vhost-memory.h"

/* Descriptors of one request, indirect ones included. */
#define VHOST_CHAIN_MAX 1024
/* Pieces of memory that they lie in: a descriptor is rarely in two regions, and never in many of a guest that is honest. */
#define VHOST_SEGMENTS_MAX (2 * VHOST_CHAIN_MAX)
#define VHOST_DESC_BYTES 16
#define VHOST_DESC_NEXT 1
#define VHOST_DESC_WRITE 2
#define VHOST_DESC_INDIRECT 4

/* Guest memory is read through these, once each: the compiler must not read it again. Unaligned on purpose. */
typedef volatile uint16_t __attribute__((aligned(1), may_alias)) guest16;
typedef volatile uint32_t __attribute__((aligned(1), may_alias)) guest32;
typedef volatile uint64_t __attribute__((aligned(1), may_alias)) guest64;

/* A descriptor as it was read; `extra` is `next` of a split ring and the buffer id of a packed one. */
struct vhost_desc {
  uint64_t address;
  uint32_t length;
  uint16_t flags, extra;
};

struct vhost_segment {
  struct vhost_region *region;
  uint8_t *bytes;
  size_t length;
};

struct vhost_chain {
  struct vhost_chain *spare; /* the next one that serves no request */
  bool writing;              /* a writable descriptor was met */
  uint16_t buffer_id;        /* packed: what the driver calls it */
  uint16_t ring_descs;       /* packed: descriptors of the ring itself that it takes */
  uint32_t descs;            /* all that were read */
  uint32_t count, readable, room;
  struct vhost_segment *segments; /* the readable ones first */
  uint64_t out_length, in_length;
  uint32_t type;
  uint64_t sector;
  struct vhost_region *status_region;
  uint8_t *status;
};

struct vhost_desc vhost_desc_split(const uint8_t *at);
struct vhost_desc vhost_desc_packed(const uint8_t *at);

void vhost_chain_begin(struct vhost_chain *chain);
/* Each returns NULL, or the rule that the guest broke. */
const char *vhost_chain_add(struct vhost_chain *chain, struct vhost_memory *memory, const struct vhost_desc *desc);
const char *vhost_chain_add_indirect(struct vhost_chain *chain, struct vhost_memory *memory,
                                     const struct vhost_desc *table, bool packed);
/* Takes header and status byte off. */
const char *vhost_chain_finish(struct vhost_chain *chain);
/* Gives the pieces of memory back. */
void vhost_chain_release(struct vhost_chain *chain, struct vhost_memory *memory);

/* The data of one direction as segments. */
struct vhost_segment *vhost_chain_data(struct vhost_chain *chain, bool readable, uint32_t *count);

#endif
