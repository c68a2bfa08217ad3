/* The data of a request. Law: bytes of memory that was cut off are not the guest's: they are never taken for its data. */
#include "vhost-data.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/uio.h>

#include "io-ops.h"

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

int vhost_data_file(struct vhost_chain *chain, struct vhost_memory *memory, bool out, int fd, off_t offset, bool nowait) {
  struct iovec parts[IOV_MAX];
  uint32_t count;
  struct vhost_segment *segments = vhost_chain_data(chain, out, &count);
  const uint64_t all = out ? chain->out_length : chain->in_length;
  if (vhost_memory_lost(memory)) return EFAULT;
  /* More than the kernel takes at once goes through a buffer, piece by piece. */
  if (count > IOV_MAX || all > INT32_MAX) return OUTCOME_WOULD_BLOCK;
  for (uint32_t index = 0; index < count; index++) {
    parts[index] = (struct iovec){.iov_base = segments[index].bytes, .iov_len = segments[index].length};
  }
  const int flags = nowait ? RWF_NOWAIT : 0;
  const ssize_t done = out ? pwritev2(fd, parts, (int)count, offset, flags) : preadv2(fd, parts, (int)count, offset, flags);
  if (done >= 0) return (uint64_t)done == all ? 0 : OUTCOME_WOULD_BLOCK;
  return errno == EAGAIN || errno == EINTR ? OUTCOME_WOULD_BLOCK : errno;
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
