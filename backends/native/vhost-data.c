/* The data of a request. Law: bytes of memory that was cut off are not the guest's: they are never taken for its data. */
#include "vhost-data.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/uio.h>

#include "io-ops.h"
#include "io-stall.h"

int vhost_data_copy(struct vhost_chain *chain, struct vhost_memory *memory, bool out, uint8_t *bytes, size_t length,
                    uint64_t from) {
  uint32_t count;
  const uint64_t all = out ? chain->out_length : chain->in_length;
  struct vhost_segment *segments = vhost_chain_data(chain, out, &count);
  if (from > all || length > all - from) return EFAULT;
  for (uint32_t index = 0; index < count && length > 0; index++) {
    if (from >= segments[index].length) {
      from -= segments[index].length;
      continue;
    }
    const size_t left = segments[index].length - (size_t)from, some = left < length ? left : length;
    if (out) memcpy(bytes, segments[index].bytes + from, some);
    else memcpy(segments[index].bytes + from, bytes, some);
    bytes += some;
    length -= some;
    from = 0;
  }
  return length > 0 || vhost_memory_lost(memory) ? EFAULT : 0;
}

/* The pieces of a range as the kernel takes them: their number, 0 when they are too many. */
static int vector(struct vhost_chain *chain, bool out, uint64_t from, uint64_t length, struct iovec *parts) {
  uint32_t count;
  const struct vhost_segment *segments = vhost_chain_data(chain, out, &count);
  int used = 0;
  for (uint32_t index = 0; index < count && length > 0; index++) {
    if (from >= segments[index].length) {
      from -= segments[index].length;
      continue;
    }
    const uint64_t left = segments[index].length - from, some = left < length ? left : length;
    if (used == IOV_MAX) return 0;
    parts[used++] = (struct iovec){.iov_base = segments[index].bytes + from, .iov_len = (size_t)some};
    length -= some;
    from = 0;
  }
  return used;
}

int vhost_data_file(struct vhost_chain *chain, struct vhost_memory *memory, bool out, int fd, uint64_t from,
                    uint64_t length, off_t offset, bool nowait) {
  struct iovec parts[IOV_MAX];
  const uint64_t all = out ? chain->out_length : chain->in_length;
  if (from > all || length > all - from || vhost_memory_lost(memory)) return EFAULT;
  /* More than the kernel takes at once goes through a buffer, piece by piece. */
  const int count = length > INT32_MAX ? 0 : vector(chain, out, from, length, parts);
  if (count == 0) return length == 0 ? 0 : OUTCOME_WOULD_BLOCK;
  const int flags = nowait ? RWF_NOWAIT : 0;
  const int64_t began = out ? io_coarse_ms() : 0;
  const ssize_t done = out ? pwritev2(fd, parts, count, offset, flags) : preadv2(fd, parts, count, offset, flags);
  if (done >= 0 && (uint64_t)done == length) return out && io_stalled_since(began) ? OUTCOME_STALLED : 0;
  return done >= 0 || errno == EAGAIN || errno == EINTR ? OUTCOME_WOULD_BLOCK : errno;
}

int64_t vhost_data_window(struct vhost_chain *chain, uint64_t *start) {
  uint32_t count;
  const bool out = chain->out_length > 0;
  if (out && chain->in_length > 0) return -1;
  struct vhost_segment *segment = vhost_chain_data(chain, out, &count);
  if (count != 1) return -1;
  const uint64_t first = (uint64_t)(segment->bytes - segment->region->bytes), last = first + segment->length - 1;
  if (first >> VHOST_WINDOW_BITS != last >> VHOST_WINDOW_BITS) return -1;
  *start = first & (VHOST_WINDOW_BYTES - 1);
  return (int64_t)segment->region->window + (int64_t)(first >> VHOST_WINDOW_BITS);
}

void vhost_data_describe(struct vhost_chain *chain, uint16_t id, double *words) {
  uint32_t out, in;
  uint64_t start = 0;
  vhost_chain_data(chain, true, &out);
  vhost_chain_data(chain, false, &in);
  words[0] = id;
  words[1] = chain->type;
  words[2] = (double)chain->sector;
  words[3] = (double)chain->out_length;
  words[4] = (double)chain->in_length;
  words[5] = out + in;
  words[6] = (double)vhost_data_window(chain, &start);
  words[7] = (double)start;
}
