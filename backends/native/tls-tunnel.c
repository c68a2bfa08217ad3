/* The work of a secured connection, in whatever thread it lives. Law: nothing here waits; what the one side has not taken is
 * kept, a piece in each direction, and the other side is not read until it has been.
 *
 *   client --recv--> OpenSSL --SSL_read--> to_plain --send--> plain   requests
 *   client <--send-- to_client <--OpenSSL--SSL_write-- recv-- plain   replies
 *
 * The first thing that goes through `plain` is how the handshake ended: TLS_SECURED with the client's certificate (DER, empty
 * where none was asked for) or TLS_FAILED with a sentence, each a byte, a length of four (big endian) and so many bytes.
 */
#include "tls-tunnel.h"

#include <endian.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "tls-context.h"
#include "tls-wire.h"

#define TLS_SECURED 0
#define TLS_FAILED 1
#define RECORD_BYTES (16 * 1024)
/* Before others have their turn. A client may send records that are no data (key updates), of which OpenSSL reads on as long as
 * there are any. */
#define READ_BYTES_A_TURN (64 * 1024)
#define PIECES_A_TURN 4

/* How the handshake ended. The pair is empty, and takes more than any certificate that OpenSSL takes. */
static bool report(struct tls_tunnel *tunnel, uint8_t outcome, const void *about, size_t length) {
  uint8_t head[5] = {outcome};
  const uint32_t wire = htobe32((uint32_t)length);
  memcpy(head + 1, &wire, sizeof wire);
  struct iovec parts[] = {{head, sizeof head}, {(void *)about, length}};
  const struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
  return sendmsg(tunnel->plain, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)(sizeof head + length);
}

static bool report_secured(struct tls_tunnel *tunnel) {
  X509 *certificate = SSL_get0_peer_certificate(tunnel->ssl);
  uint8_t *der = NULL;
  const int length = certificate == NULL ? 0 : i2d_X509(certificate, &der);
  const bool ok = length >= 0 && report(tunnel, TLS_SECURED, der, (size_t)length);
  OPENSSL_free(der);
  return ok;
}

static void report_failed(struct tls_tunnel *tunnel) {
  char reason[TLS_REASON_BYTES], sentence[2 * TLS_REASON_BYTES];
  tls_take_reason(reason);
  const long verified = SSL_get_verify_result(tunnel->ssl);
  const char *detail = verified == X509_V_OK ? "" : X509_verify_cert_error_string(verified);
  if (tunnel->client_over || reason[0] == 0) snprintf(sentence, sizeof sentence, "the client left during the TLS handshake");
  else snprintf(sentence, sizeof sentence, "%s%s%s", reason, *detail == 0 ? "" : ": ", detail);
  report(tunnel, TLS_FAILED, sentence, strlen(sentence));
}

static enum tls_turn shake_hands(struct tls_tunnel *tunnel, int64_t now_ms) {
  ERR_clear_error();
  const int done = SSL_accept(tunnel->ssl);
  const int error = SSL_get_error(tunnel->ssl, done);
  if (done != 1 && error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
    report_failed(tunnel);
    tls_flush_client(tunnel, now_ms); /* an alert, if it can be had */
    return TLS_IS_OVER;
  }
  if (!tls_flush_client(tunnel, now_ms)) {
    tunnel->client_over = true;
    report_failed(tunnel);
    return TLS_IS_OVER;
  }
  if (done != 1 && tunnel->may_read == 0) return TLS_GOES_ON;
  if (done != 1) return error == SSL_ERROR_WANT_WRITE && tunnel->to_client.bytes == NULL ? TLS_GOES_ON : TLS_RESTS;
  tunnel->phase = TLS_OPEN;
  return report_secured(tunnel) ? TLS_GOES_ON : TLS_IS_OVER;
}

/* Requests of as many records as have come. False when the client broke TLS, or its socket is of no more use. */
static bool decipher(struct tls_tunnel *tunnel) {
  struct tls_piece *piece = &tunnel->to_plain;
  if (!tls_take_piece(tunnel->pieces, piece)) return false;
  ERR_clear_error();
  while (TLS_PIECE_ROOM - piece->end >= RECORD_BYTES) {
    size_t got;
    const int ok = SSL_read_ex(tunnel->ssl, piece->bytes + piece->end, TLS_PIECE_ROOM - piece->end, &got);
    if (ok == 1) {
      piece->end += got;
      continue;
    }
    const int error = SSL_get_error(tunnel->ssl, ok);
    if (error == SSL_ERROR_ZERO_RETURN) tunnel->client_over = true;
    /* One who makes OpenSSL say more than there is room for, and takes none of it, means harm. */
    return error == SSL_ERROR_WANT_READ || tunnel->client_over;
  }
  return true;
}

/* Whether there may be more of them. */
static enum tls_turn carry_requests(struct tls_tunnel *tunnel, int64_t now_ms) {
  for (;;) {
    if (!tunnel->plain_deaf && !tls_flush_plain(tunnel)) tunnel->plain_deaf = true;
    if (tunnel->plain_deaf) tls_give_piece(tunnel->pieces, &tunnel->to_plain);
    if (tunnel->to_plain.bytes != NULL || tunnel->plain_deaf) return TLS_RESTS;
    if (tunnel->client_over && !tunnel->told_over) shutdown(tunnel->plain, SHUT_WR);
    if (tunnel->client_over) tunnel->told_over = true;
    if (tunnel->client_over) return TLS_RESTS;
    if (!decipher(tunnel)) {
      /* What came before it was the client's own; it is told what is wrong. */
      tls_flush_plain(tunnel);
      tls_flush_client(tunnel, now_ms);
      return TLS_IS_OVER;
    }
    if (tunnel->to_plain.end == 0) {
      tls_give_piece(tunnel->pieces, &tunnel->to_plain);
      if (!tunnel->client_over) return tunnel->may_read == 0 ? TLS_GOES_ON : TLS_RESTS;
    }
  }
}

/* Ciphers a piece; there is room for all of it, since nothing was on its way. */
static bool cipher(struct tls_tunnel *tunnel, const uint8_t *bytes, size_t length) {
  ERR_clear_error();
  for (size_t at = 0, taken; at < length; at += taken) {
    if (SSL_write_ex(tunnel->ssl, bytes + at, length - at, &taken) != 1) return false;
  }
  return true;
}

static enum tls_turn leave(struct tls_tunnel *tunnel, int64_t now_ms) {
  tunnel->phase = TLS_LEAVING;
  tunnel->plain_deaf = true;
  tunnel->deadline_ms = now_ms + TLS_LINGER_MS;
  ERR_clear_error();
  SSL_shutdown(tunnel->ssl);
  if (!tls_flush_client(tunnel, now_ms)) return TLS_IS_OVER;
  return TLS_GOES_ON;
}

static enum tls_turn carry_replies(struct tls_tunnel *tunnel, int64_t now_ms) {
  for (int count = 0; count < PIECES_A_TURN; count++) {
    if (!tls_flush_client(tunnel, now_ms)) return TLS_IS_OVER;
    if (tunnel->to_client.bytes != NULL) return TLS_RESTS;
    struct tls_piece plain = {0};
    if (!tls_take_piece(tunnel->pieces, &plain)) return TLS_IS_OVER;
    const ssize_t got = tls_receive_plain(tunnel, plain.bytes, TLS_PIECE_BYTES);
    const bool ok = got <= 0 || cipher(tunnel, plain.bytes, (size_t)got);
    tls_give_piece(tunnel->pieces, &plain);
    if (!ok) return TLS_IS_OVER;
    if (got == -1) return TLS_RESTS;
    /* An end with requests that nobody has read is an error, behind the last replies. */
    if (got <= 0) return leave(tunnel, now_ms);
  }
  return TLS_GOES_ON;
}

/* The client has its last replies and the end: what it still says is thrown away, since closing over it would take them back. */
static enum tls_turn part(struct tls_tunnel *tunnel, int64_t now_ms) {
  if (!tls_flush_client(tunnel, now_ms)) return TLS_IS_OVER;
  if (tunnel->to_client.bytes != NULL) return TLS_RESTS;
  shutdown(tunnel->client, SHUT_WR);
  struct tls_piece waste = {0};
  if (!tls_take_piece(tunnel->pieces, &waste)) return TLS_IS_OVER;
  const ssize_t got = tls_receive_client(tunnel, waste.bytes, TLS_PIECE_ROOM);
  tls_give_piece(tunnel->pieces, &waste);
  if (got > 0) return TLS_GOES_ON;
  return got == -1 ? TLS_RESTS : TLS_IS_OVER;
}

enum tls_turn tls_tunnel_turn(struct tls_tunnel *tunnel, int64_t now_ms) {
  tunnel->may_read = READ_BYTES_A_TURN;
  if (tunnel->plain_closed && tunnel->phase == TLS_HANDSHAKE) return TLS_IS_OVER;
  if (tunnel->plain_closed) tunnel->plain_deaf = true;
  if (tunnel->plain_closed && tunnel->deadline_ms == 0) tunnel->deadline_ms = now_ms + TLS_LINGER_MS;
  if (tunnel->phase == TLS_HANDSHAKE) return shake_hands(tunnel, now_ms);
  if (tunnel->phase == TLS_LEAVING) return part(tunnel, now_ms);
  const enum tls_turn requests = carry_requests(tunnel, now_ms);
  if (requests == TLS_IS_OVER) return TLS_IS_OVER;
  const enum tls_turn replies = carry_replies(tunnel, now_ms);
  return replies == TLS_RESTS ? requests : replies;
}
