/* The two sockets of a tunnel, and OpenSSL between them. Law: nothing here waits; what a socket has not taken is kept. */
#include "tls-wire.h"

#include <errno.h>
#include <openssl/bio.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "socket-io.h"

/* A wish, which the kernel doubles. */
#define LARGE_BUFFER_BYTES (2 << 20)
#define LARGE_BUFFERS_MAX 16

bool tls_take_piece(struct tls_pieces *pieces, struct tls_piece *piece) {
  if (piece->bytes == NULL) {
    piece->start = piece->end = 0;
    piece->bytes = pieces->count > 0 ? pieces->spare[--pieces->count] : malloc(TLS_PIECE_ROOM);
  }
  return piece->bytes != NULL;
}

void tls_give_piece(struct tls_pieces *pieces, struct tls_piece *piece) {
  const int room = sizeof pieces->spare / sizeof *pieces->spare;
  if (piece->bytes != NULL && pieces->count < room) pieces->spare[pieces->count++] = piece->bytes;
  else free(piece->bytes);
  piece->bytes = NULL;
}

void tls_pieces_free(struct tls_pieces *pieces) {
  while (pieces->count > 0) free(pieces->spare[--pieces->count]);
}

static atomic_int large_buffers;

static ssize_t receive(int fd, void *into, size_t length, bool ends, bool *drained) {
  if (*drained) return -1;
  ssize_t got;
  do {
    got = recv(fd, into, length, MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  if (got < 0 && errno != EAGAIN) return -2;
  *drained = !ends && got != (ssize_t)length;
  return got;
}

ssize_t tls_receive_client(struct tls_tunnel *tunnel, void *into, size_t length) {
  return receive(tunnel->client, into, length, tunnel->client_ends, &tunnel->client_drained);
}

ssize_t tls_receive_plain(struct tls_tunnel *tunnel, void *into, size_t length) {
  return receive(tunnel->plain, into, length, tunnel->plain_ends, &tunnel->plain_drained);
}

/* The socket under OpenSSL: reads are the kernel's, what is written gathers in `to_client`. */
static int on_read(BIO *bio, char *into, int length) {
  struct tls_tunnel *tunnel = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  const size_t wanted = (size_t)length < tunnel->may_read ? (size_t)length : tunnel->may_read;
  const ssize_t got = wanted == 0 ? -1 : tls_receive_client(tunnel, into, wanted);
  if (got > 0) tunnel->may_read -= (size_t)got;
  if (got == 0) tunnel->client_over = true;
  if (got == -1) BIO_set_retry_read(bio);
  return got < 0 ? -1 : (int)got;
}

static int on_write(BIO *bio, const char *bytes, int length) {
  struct tls_tunnel *tunnel = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  if (!tls_take_piece(tunnel->pieces, &tunnel->to_client)) return -1;
  const size_t room = TLS_PIECE_ROOM - tunnel->to_client.end;
  const size_t taken = (size_t)length < room ? (size_t)length : room;
  memcpy(tunnel->to_client.bytes + tunnel->to_client.end, bytes, taken);
  tunnel->to_client.end += taken;
  if (taken == 0) BIO_set_retry_write(bio);
  return taken == 0 ? -1 : (int)taken;
}

static long on_control(BIO *bio, int command, long number, void *argument) {
  (void)number, (void)argument;
  const struct tls_tunnel *tunnel = BIO_get_data(bio);
  if (command == BIO_CTRL_EOF) return tunnel->client_over;
  return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *method;
static pthread_once_t method_once = PTHREAD_ONCE_INIT;

static void make_method(void) {
  method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "candor tunnel");
  BIO_meth_set_read(method, on_read);
  BIO_meth_set_write(method, on_write);
  BIO_meth_set_ctrl(method, on_control);
}

void tls_group_let_go(struct tls_group *group) {
  if (atomic_fetch_sub(&group->holders, 1) == 1) free(group);
}

struct tls_tunnel *tls_tunnel_new(struct tls_group *group, SSL_CTX *context, int client, int plain) {
  pthread_once(&method_once, make_method);
  struct tls_tunnel *tunnel = calloc(1, sizeof *tunnel);
  SSL *ssl = SSL_new(context);
  BIO *bio = BIO_new(method);
  if (tunnel == NULL || ssl == NULL || bio == NULL) {
    BIO_free(bio);
    SSL_free(ssl);
    free(tunnel);
    return NULL;
  }
  BIO_set_data(bio, tunnel);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl, bio, bio);
  SSL_set_accept_state(ssl);
  *tunnel = (struct tls_tunnel){.ssl = ssl, .group = group, .client = client, .plain = plain};
  atomic_fetch_add(&group->holders, 1);
  atomic_fetch_add(&group->open, 1);
  return tunnel;
}

void tls_tunnel_abandon(struct tls_tunnel *tunnel) {
  SSL_free(tunnel->ssl);
  atomic_fetch_sub(&tunnel->group->open, 1);
  tls_group_let_go(tunnel->group);
  free(tunnel);
}

void tls_tunnel_free(struct tls_tunnel *tunnel) {
  tls_give_piece(tunnel->pieces, &tunnel->to_client);
  tls_give_piece(tunnel->pieces, &tunnel->to_plain);
  if (tunnel->has_large_buffer) atomic_fetch_sub(&large_buffers, 1);
  close(tunnel->client);
  close(tunnel->plain);
  tls_tunnel_abandon(tunnel);
}

/* One of few gets a larger send buffer when it is full for the first time: the usual 208 KiB of a Unix socket are three pieces, and
 * the kernel tells of room only when three quarters of it are free. */
static void enlarge(struct tls_tunnel *tunnel) {
  tunnel->was_full = true;
  tunnel->has_large_buffer = atomic_fetch_add(&large_buffers, 1) < LARGE_BUFFERS_MAX &&
                             socket_send_buffer(tunnel->client, LARGE_BUFFER_BYTES) == 0;
  if (!tunnel->has_large_buffer) atomic_fetch_sub(&large_buffers, 1);
}

static bool flush(struct tls_tunnel *tunnel, int fd, struct tls_piece *piece) {
  while (piece->bytes != NULL && piece->start < piece->end) {
    const ssize_t sent = send(fd, piece->bytes + piece->start, piece->end - piece->start, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return errno == EAGAIN;
    piece->start += (size_t)sent;
  }
  tls_give_piece(tunnel->pieces, piece);
  return true;
}

bool tls_flush_client(struct tls_tunnel *tunnel, int64_t now_ms) {
  if (tunnel->to_client.bytes == NULL) return true;
  const size_t before = tunnel->to_client.start;
  bool ok = flush(tunnel, tunnel->client, &tunnel->to_client);
  if (ok && tunnel->to_client.bytes != NULL && !tunnel->was_full) {
    enlarge(tunnel);
    ok = flush(tunnel, tunnel->client, &tunnel->to_client);
  }
  const bool moved = tunnel->to_client.bytes == NULL || tunnel->to_client.start > before;
  if (tunnel->deadline_ms != 0 && moved) tunnel->deadline_ms = now_ms + TLS_LINGER_MS;
  return ok;
}

bool tls_flush_plain(struct tls_tunnel *tunnel) { return flush(tunnel, tunnel->plain, &tunnel->to_plain); }
