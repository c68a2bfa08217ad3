/* Mappings of files that somebody else may cut off. */
#ifndef CANDOR_VHOST_GUARD_H
#define CANDOR_VHOST_GUARD_H

#include <stdatomic.h>
#include <stddef.h>

struct vhost_guard;

/* From here on a touch of this thread beyond the end of the mapped file sets `lost` and finds zeroes instead of SIGBUS.
 * NULL when no more mappings can be guarded. */
struct vhost_guard *vhost_guard_add(void *start, size_t length, atomic_int *lost);
/* Before munmap(2). */
void vhost_guard_remove(struct vhost_guard *guard);

#endif
