/* The data of a request, between a guest's memory and buffers or files. */
#ifndef CANDOR_VHOST_DATA_H
#define CANDOR_VHOST_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "vhost-chain.h"

#define VHOST_REQUEST_WORDS 8

/* Copies `length` bytes from byte `from` on of what the guest hands over (out), or to where it wants them (!out). 0, or
 * EFAULT: it is shorter, or its memory was cut off. */
int vhost_data_copy(struct vhost_chain *chain, struct vhost_memory *memory, bool out, uint8_t *bytes, size_t length,
                    uint64_t from);
/* preadv2(2) or pwritev2(2) of `length` bytes from byte `from` on: an outcome as io-ops.h has them, WOULD_BLOCK for anything
 * short. */
int vhost_data_file(struct vhost_chain *chain, struct vhost_memory *memory, bool out, int fd, uint64_t from,
                    uint64_t length, off_t offset, bool nowait);
/* What a request says of itself, as the words of its row in the table that is handed over. */
void vhost_data_describe(struct vhost_chain *chain, uint16_t id, double *words);
/* The window that holds the data as one piece, and where in it; -1 where there is none. */
int64_t vhost_data_window(struct vhost_chain *chain, uint64_t *start);

#endif
