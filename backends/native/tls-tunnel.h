/* One secured connection: the client's socket with its ciphers on one side, a pair of sockets in the clear on the other. */
#ifndef CANDOR_TLS_TUNNEL_H
#define CANDOR_TLS_TUNNEL_H

#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is ciphered, or given to the export's thread, at once. */
#define TLS_PIECE_BYTES (64 * 1024)
/* What TLS adds to it: at most 256 bytes a record of 16 KiB, and a handshake's or a key's own messages. */
#define TLS_PIECE_ROOM (TLS_PIECE_BYTES + 24 * 1024)

/* Memory of a thread's own, taken only while something is on its way. */
struct tls_pieces {
  uint8_t *spare[8];
  int count;
};

struct tls_piece {
  uint8_t *bytes; /* NULL: nothing is on its way */
  size_t start, end;
};

/* Tunnels that somebody counts. */
struct tls_group {
  atomic_int open;
  atomic_int holders; /* the tunnels, and who counts them */
};

enum tls_phase {
  TLS_HANDSHAKE,
  TLS_OPEN,
  TLS_LEAVING /* the export has no more to say: the client gets what is on its way, and the end */
};

struct tls_tunnel {
  SSL *ssl;
  struct tls_group *group;
  struct tls_pieces *pieces;
  int client, plain;
  enum tls_phase phase;
  struct tls_piece to_client; /* ciphered */
  struct tls_piece to_plain;
  bool client_drained, plain_drained; /* the kernel has no more until it tells of some */
  bool client_ends, plain_ends;       /* behind what it has comes the end, of which it does not tell again */
  bool client_over;                   /* the client has said all */
  bool told_over;                     /* and the export's thread knows */
  bool plain_deaf;                    /* nobody reads requests any more */
  bool plain_closed;                  /* its other end is gone, whatever lies between */
  bool client_gone;                   /* in both directions */
  size_t may_read;                    /* bytes of the client's in this turn */
  bool was_full, has_large_buffer;    /* the client's socket */
  int64_t deadline_ms;                /* of a client that takes nothing of its last replies; 0: none */
  struct tls_tunnel *previous, *next, *next_ready;
  bool is_ready;
};

enum tls_turn {
  TLS_RESTS, /* until one of its sockets tells of something */
  TLS_GOES_ON,
  TLS_IS_OVER
};

/* Secures the client's socket; NULL without memory. Both descriptors are the tunnel's. */
struct tls_tunnel *tls_tunnel_new(struct tls_group *group, SSL_CTX *context, int client, int plain);

/* Carries what has come. `now_ms` is of a clock that goes on. */
enum tls_turn tls_tunnel_turn(struct tls_tunnel *tunnel, int64_t now_ms);

void tls_tunnel_free(struct tls_tunnel *tunnel);

/* The same, without its descriptors. */
void tls_tunnel_abandon(struct tls_tunnel *tunnel);

void tls_group_let_go(struct tls_group *group);

void tls_pieces_free(struct tls_pieces *pieces);

#endif
