/* The eventfds of a queue. */
#ifndef CANDOR_VHOST_EVENTS_H
#define CANDOR_VHOST_EVENTS_H

#include <stddef.h>
#include <uv.h>

struct vhost_kick;

/* A duplicate of an eventfd that never waits, or minus errno: EBADF for a descriptor that is none. */
int vhost_event_take(int fd);
void vhost_event_signal(int fd);

/* Watches a kick; `closed` is called once, some time after vhost_kick_close. NULL when it cannot be watched. */
struct vhost_kick *vhost_kick_open(uv_loop_t *loop, int fd, void *data, void (*kicked)(void *), void (*closed)(void *));
void vhost_kick_close(struct vhost_kick *kick);

#endif
