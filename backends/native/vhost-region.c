/* A stretch of a file of memory, mapped. Law: the file held all of it when it was mapped, and its pages come without
 * asking a server or another process: nothing that touches them waits. */
#include "vhost-region.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "foreign-fd.h"

/* 0, or why this file cannot be mapped. Huge pages are mapped whole: `page` becomes their size. */
static int look_at(int fd, uint64_t offset, uint64_t size, uint64_t *page) {
  struct stat status;
  struct statfs system;
  if (!foreign_is_memory(fd)) return errno == EBADF ? EBADF : EOPNOTSUPP;
  if (fstat(fd, &status) != 0 || fstatfs(fd, &system) != 0) return errno;
  if (!S_ISREG(status.st_mode)) return EOPNOTSUPP;
  if (system.f_type != TMPFS_MAGIC && system.f_type != HUGETLBFS_MAGIC) return EOPNOTSUPP;
  *page = system.f_type == HUGETLBFS_MAGIC ? (uint64_t)status.st_blksize : (uint64_t)sysconf(_SC_PAGESIZE);
  if (*page == 0 || (*page & (*page - 1)) != 0) return EINVAL;
  const uint64_t length = (uint64_t)status.st_size;
  return offset > length || size > length - offset ? ENXIO : 0;
}

int vhost_region_map(struct vhost_region *region, int fd, uint64_t offset, uint64_t size, atomic_int *lost) {
  uint64_t page;
  const int error = size == 0 ? EINVAL : look_at(fd, offset, size, &page);
  if (error != 0) return error;
  /* No overflow: offset + size is within a file, whose size is a positive int64_t. */
  const uint64_t start = offset & ~(page - 1), before = offset - start;
  const uint64_t length = (before + size + page - 1) & ~(page - 1);
  void *mapped = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, (off_t)start);
  if (mapped == MAP_FAILED) return errno;
  struct vhost_guard *guard = vhost_guard_add(mapped, length, lost);
  if (guard == NULL) {
    munmap(mapped, length);
    return ENOSPC;
  }
  /* A core dump is no place for what a guest has in its memory. */
  madvise(mapped, length, MADV_DONTDUMP);
  region->size = size;
  region->bytes = (uint8_t *)mapped + before;
  region->mapped = mapped;
  region->mapped_length = length;
  region->guard = guard;
  return 0;
}

void vhost_region_unmap(struct vhost_region *region) {
  vhost_guard_remove(region->guard);
  munmap(region->mapped, region->mapped_length);
}
