/* What goes over the two sockets of a tunnel. */
#ifndef CANDOR_TLS_WIRE_H
#define CANDOR_TLS_WIRE_H

#include <sys/types.h>

#include "tls-tunnel.h"

/* A client that takes nothing of its last replies for this long loses them. */
#define TLS_LINGER_MS 2000

/* Memory for a piece, unless it has some; false without any. */
bool tls_take_piece(struct tls_pieces *pieces, struct tls_piece *piece);
void tls_give_piece(struct tls_pieces *pieces, struct tls_piece *piece);

/* Bytes, 0 at the end, -1 when there are none now, -2 when the socket is of no more use. */
ssize_t tls_receive_client(struct tls_tunnel *tunnel, void *into, size_t length);
ssize_t tls_receive_plain(struct tls_tunnel *tunnel, void *into, size_t length);

/* Send what is on its way: false when the socket is of no more use. What it does not take stays. */
bool tls_flush_client(struct tls_tunnel *tunnel, int64_t now_ms);
bool tls_flush_plain(struct tls_tunnel *tunnel);

#endif
