/* The way of a socket into TLS, and the threads behind it. Law: they end before the process does, since OpenSSL takes itself
 * apart in exit(3). */
#include "tls-door.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "napi-door.h"
#include "tls-threads.h"
#include "tls-tunnel.h"

#define THREADS_MAX 4

static struct {
  pthread_mutex_t lock;
  int count;
  struct tls_thread *threads[THREADS_MAX];
} all = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void end_threads(void) {
  for (int at = 0; at < all.count; at++) tls_thread_end(all.threads[at]);
}

/* Called with the lock held; NULL with errno. */
static struct tls_thread *add_thread(void) {
  struct tls_thread *thread = tls_thread_start();
  if (thread == NULL) return NULL;
  if (all.count == 0) atexit(end_threads);
  return all.threads[all.count++] = thread;
}

/* The one with the least to carry. One that cannot be started is done without where there is another. */
static struct tls_thread *choose(void) {
  struct tls_thread *best = NULL;
  for (int at = 0; at < all.count; at++) {
    if (best == NULL || tls_thread_load(all.threads[at]) < tls_thread_load(best)) best = all.threads[at];
  }
  const long processors = sysconf(_SC_NPROCESSORS_ONLN);
  if (best != NULL && (tls_thread_load(best) == 0 || all.count == THREADS_MAX || all.count >= processors)) return best;
  struct tls_thread *added = add_thread();
  return added != NULL ? added : best;
}

/* 0, or an errno: the tunnel is nobody's then. */
static int carry(struct tls_tunnel *tunnel) {
  pthread_mutex_lock(&all.lock);
  struct tls_thread *thread = choose();
  const int error = thread == NULL ? errno : 0;
  if (thread != NULL) tls_thread_carry(thread, tunnel);
  pthread_mutex_unlock(&all.lock);
  return error;
}

static int secure(struct tls_group *group, SSL_CTX *context, int client) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) return -errno;
  struct tls_tunnel *tunnel = tls_tunnel_new(group, context, client, pair[0]);
  const int error = tunnel == NULL ? ENOMEM : carry(tunnel);
  if (error == 0) return pair[1];
  if (tunnel != NULL) tls_tunnel_abandon(tunnel);
  close(pair[0]);
  close(pair[1]);
  return -error;
}

static void free_group(napi_env env, void *group, void *hint) {
  (void)env, (void)hint;
  tls_group_let_go(group);
}

/* tlsTunnels() -> external: tunnels that are counted together. */
static napi_value tls_tunnels(napi_env env, napi_callback_info info) {
  (void)info;
  napi_value external;
  struct tls_group *group = calloc(1, sizeof *group);
  if (group == NULL) return door_throw(env, "out of memory");
  atomic_store(&group->holders, 1);
  DOOR_OK(napi_create_external(env, group, free_group, NULL, &external));
  return external;
}

/* tlsSecure(tunnels, context, socket) -> a descriptor that speaks for the client in the clear, first of how the handshake ended
 * (tls-tunnel.c); the socket is the tunnel's. Or minus errno, and the socket is not. */
static napi_value tls_secure(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  size_t count = 3;
  int32_t client;
  void *group, *context;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_value_external(env, arguments[0], &group));
  DOOR_OK(napi_get_value_external(env, arguments[1], &context));
  DOOR_OK(napi_get_value_int32(env, arguments[2], &client));
  return door_int(env, secure(group, context, client));
}

/* tlsOpen(tunnels) -> how many there are, those that are about to end included. */
static napi_value tls_open(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  void *group;
  DOOR_OK(napi_get_cb_info(env, info, &count, &argument, NULL, NULL));
  DOOR_OK(napi_get_value_external(env, argument, &group));
  return door_int(env, atomic_load(&((struct tls_group *)group)->open));
}

napi_status tls_door_define(napi_env env, napi_value exports) {
  const napi_property_descriptor properties[] = {
      {"tlsTunnels", NULL, tls_tunnels, NULL, NULL, NULL, napi_default, NULL},
      {"tlsSecure", NULL, tls_secure, NULL, NULL, NULL, napi_default, NULL},
      {"tlsOpen", NULL, tls_open, NULL, NULL, NULL, napi_default, NULL},
  };
  return napi_define_properties(env, exports, sizeof properties / sizeof *properties, properties);
}
