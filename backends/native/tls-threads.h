/* A thread that carries secured connections, as many as are given to it. */
#ifndef CANDOR_TLS_THREADS_H
#define CANDOR_TLS_THREADS_H

#include "tls-tunnel.h"

struct tls_thread;

/* NULL with errno. */
struct tls_thread *tls_thread_start(void);

/* Connections that it carries. */
int tls_thread_load(const struct tls_thread *thread);

/* The tunnel is the thread's from here on. */
void tls_thread_carry(struct tls_thread *thread, struct tls_tunnel *tunnel);

/* Ends its connections, and waits for its own end. */
void tls_thread_end(struct tls_thread *thread);

#endif
