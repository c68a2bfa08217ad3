/* A server's TLS settings as OpenSSL wants them. Law: sessions are not resumed and nothing is renegotiated, so who a client
 * is has been shown in its one handshake. */
#include "tls-context.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "napi-door.h"

/* A record's room comes and goes with what is in it; a WRITE's records are read as many at a time as fit. */
#define READ_AHEAD_BYTES (64 * 1024)

struct pre_shared_key {
  char *identity;
  unsigned char *key;
  size_t length;
};

struct key_ring {
  struct pre_shared_key *keys;
  uint32_t count;
};

static int ring_at; /* index of the context's ex_data */
static pthread_once_t ring_once = PTHREAD_ONCE_INIT;

void tls_take_reason(char reason[TLS_REASON_BYTES]) {
  const unsigned long code = ERR_peek_error();
  const char *said = code == 0 ? NULL : ERR_reason_error_string(code);
  reason[0] = 0;
  if (said != NULL) {
    strncpy(reason, said, TLS_REASON_BYTES - 1);
    reason[TLS_REASON_BYTES - 1] = 0;
  } else if (code != 0) {
    ERR_error_string_n(code, reason, TLS_REASON_BYTES);
  }
  ERR_clear_error();
}

static void free_ring(void *parent, void *data, CRYPTO_EX_DATA *all, int index, long argl, void *argp) {
  (void)parent, (void)all, (void)index, (void)argl, (void)argp;
  struct key_ring *ring = data;
  if (ring == NULL) return;
  for (uint32_t at = 0; at < ring->count; at++) {
    free(ring->keys[at].identity);
    OPENSSL_clear_free(ring->keys[at].key, ring->keys[at].length);
  }
  free(ring->keys);
  free(ring);
}

/* Of TLS 1.2 and, by OpenSSL's own bridge, 1.3. 0: there is no such identity. */
static unsigned find_key(SSL *ssl, const char *identity, unsigned char *key, unsigned room) {
  const struct key_ring *ring = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), ring_at);
  for (uint32_t at = 0; ring != NULL && identity != NULL && at < ring->count; at++) {
    const struct pre_shared_key *known = &ring->keys[at];
    if (strcmp(known->identity, identity) != 0 || known->length > room) continue;
    memcpy(key, known->key, known->length);
    return (unsigned)known->length;
  }
  return 0;
}

static int no_passphrase(char *into, int room, int writes, void *argument) {
  (void)into, (void)room, (void)writes, (void)argument;
  return -1;
}

/* Whether there was nothing more in a PEM text, rather than something that cannot be read. */
static bool at_end(void) {
  const unsigned long last = ERR_peek_last_error();
  const bool ended = ERR_GET_LIB(last) == ERR_LIB_PEM && ERR_GET_REASON(last) == PEM_R_NO_START_LINE;
  if (ended) ERR_clear_error();
  return ended;
}

/* The server's certificate, and those behind it up to its authority. */
static bool use_chain(SSL_CTX *context, BIO *pem) {
  X509 *own = PEM_read_bio_X509_AUX(pem, NULL, no_passphrase, NULL);
  if (own == NULL) return false;
  bool ok = SSL_CTX_use_certificate(context, own) == 1;
  X509_free(own);
  for (X509 *next; ok && (next = PEM_read_bio_X509(pem, NULL, no_passphrase, NULL)) != NULL;) {
    ok = SSL_CTX_add0_chain_cert(context, next) == 1;
    if (!ok) X509_free(next);
  }
  return ok && at_end();
}

static bool use_key(SSL_CTX *context, BIO *pem) {
  EVP_PKEY *key = PEM_read_bio_PrivateKey(pem, NULL, no_passphrase, NULL);
  const bool ok = key != NULL && SSL_CTX_use_PrivateKey(context, key) == 1 && SSL_CTX_check_private_key(context) == 1;
  EVP_PKEY_free(key);
  return ok;
}

/* Clients have to show a certificate that one of these authorities signed. */
static bool believe(SSL_CTX *context, BIO *pem) {
  X509_STORE *store = SSL_CTX_get_cert_store(context);
  int count = 0;
  for (X509 *authority; (authority = PEM_read_bio_X509(pem, NULL, no_passphrase, NULL)) != NULL; count++) {
    const bool ok = X509_STORE_add_cert(store, authority) == 1 && SSL_CTX_add_client_CA(context, authority) == 1;
    X509_free(authority);
    if (!ok) return false;
  }
  if (count == 0 || !at_end()) return false;
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
  return true;
}

static SSL_CTX *new_context(void) {
  SSL_CTX *context = SSL_CTX_new(TLS_server_method());
  if (context == NULL) return NULL;
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                                   SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_IGNORE_UNEXPECTED_EOF);
  /* A pre-shared key counts as a session that goes on, which belongs to nobody without a name. */
  SSL_CTX_set_session_id_context(context, (const unsigned char *)"candor", 6);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context, 0);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(context, 1);
  SSL_CTX_set_default_read_buffer_len(context, READ_AHEAD_BYTES);
  SSL_CTX_set_psk_server_callback(context, find_key);
  return context;
}

static bool option_of(napi_env env, napi_value options, const char *name, napi_value *value, bool *says) {
  napi_valuetype type;
  if (napi_get_named_property(env, options, name, value) != napi_ok || napi_typeof(env, *value, &type) != napi_ok) return false;
  *says = type != napi_undefined;
  return true;
}

/* What an option says to a context, as a text or as a PEM file's; true when it is undefined. One that cannot be read is an
 * error: without its authorities a server would let everybody in. */
static bool apply(napi_env env, napi_value options, const char *name, SSL_CTX *context, bool (*use)(SSL_CTX *, BIO *)) {
  napi_value value;
  bool says;
  size_t length;
  if (!option_of(env, options, name, &value, &says)) return false;
  if (!says) return true;
  if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok) return false;
  char *text = OPENSSL_malloc(length + 1);
  if (text == NULL) return false;
  const bool whole = napi_get_value_string_utf8(env, value, text, length + 1, &length) == napi_ok;
  BIO *bio = whole ? BIO_new_mem_buf(text, (int)length) : NULL;
  const bool ok = bio != NULL && use(context, bio);
  BIO_free(bio);
  OPENSSL_clear_free(text, length + 1);
  return ok;
}

static const char *whole_text(BIO *bio) {
  char *text;
  BIO_get_mem_data(bio, &text);
  return text;
}

static bool use_ciphers(SSL_CTX *context, BIO *text) { return SSL_CTX_set_cipher_list(context, whole_text(text)) == 1; }

static bool use_suites(SSL_CTX *context, BIO *text) { return SSL_CTX_set_ciphersuites(context, whole_text(text)) == 1; }

static bool read_key(napi_env env, napi_value pair, struct pre_shared_key *into) {
  napi_value identity, bytes;
  size_t length;
  napi_typedarray_type type;
  void *data;
  if (napi_get_element(env, pair, 0, &identity) != napi_ok || napi_get_element(env, pair, 1, &bytes) != napi_ok) return false;
  if (napi_get_value_string_utf8(env, identity, NULL, 0, &length) != napi_ok) return false;
  if (napi_get_typedarray_info(env, bytes, &type, &into->length, &data, NULL, NULL) != napi_ok) return false;
  into->identity = malloc(length + 1);
  into->key = OPENSSL_memdup(data, into->length);
  if (into->identity == NULL || into->key == NULL || type != napi_uint8_array) return false;
  return napi_get_value_string_utf8(env, identity, into->identity, length + 1, &length) == napi_ok;
}

/* keys: [identity, Uint8Array][]; true when it is undefined. */
static bool apply_keys(napi_env env, napi_value options, SSL_CTX *context) {
  napi_value list, pair;
  bool says;
  if (!option_of(env, options, "keys", &list, &says)) return false;
  if (!says) return true;
  struct key_ring *ring = calloc(1, sizeof *ring);
  uint32_t count;
  if (ring == NULL || napi_get_array_length(env, list, &count) != napi_ok || SSL_CTX_set_ex_data(context, ring_at, ring) != 1) return free(ring), false;
  ring->keys = calloc(count + 1, sizeof *ring->keys);
  while (ring->keys != NULL && ring->count < count) {
    if (napi_get_element(env, list, ring->count, &pair) != napi_ok) return false;
    if (!read_key(env, pair, &ring->keys[ring->count++])) return false;
  }
  return ring->keys != NULL;
}

static void free_context(napi_env env, void *context, void *hint) {
  (void)env, (void)hint;
  SSL_CTX_free(context);
}

/* tlsContext({cert, key, ca, ciphers, suites, keys, versionMin, versionMax}) -> external. Each may be left out but the
 * versions, numbers of the wire. Throws an Error with OpenSSL's words. */
static napi_value tls_context(napi_env env, napi_callback_info info) {
  napi_value options, value, external;
  size_t count = 1;
  int32_t min, max;
  char reason[TLS_REASON_BYTES];
  DOOR_OK(napi_get_cb_info(env, info, &count, &options, NULL, NULL));
  DOOR_OK(napi_get_named_property(env, options, "versionMin", &value));
  DOOR_OK(napi_get_value_int32(env, value, &min));
  DOOR_OK(napi_get_named_property(env, options, "versionMax", &value));
  DOOR_OK(napi_get_value_int32(env, value, &max));
  ERR_clear_error();
  SSL_CTX *context = new_context();
  const bool ok = context != NULL && SSL_CTX_set_min_proto_version(context, min) == 1 &&
                  SSL_CTX_set_max_proto_version(context, max) == 1 && apply(env, options, "ciphers", context, use_ciphers) &&
                  apply(env, options, "suites", context, use_suites) && apply(env, options, "cert", context, use_chain) &&
                  apply(env, options, "key", context, use_key) && apply(env, options, "ca", context, believe) &&
                  apply_keys(env, options, context);
  if (!ok) {
    tls_take_reason(reason);
    SSL_CTX_free(context);
    napi_throw_error(env, NULL, reason[0] == 0 ? "OpenSSL does not take them" : reason);
    return NULL;
  }
  DOOR_OK(napi_create_external(env, context, free_context, NULL, &external));
  return external;
}

static void take_ring_place(void) { ring_at = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_ring); }

napi_status tls_context_define(napi_env env, napi_value exports) {
  pthread_once(&ring_once, take_ring_place);
  const napi_property_descriptor properties[] = {
      {"tlsContext", NULL, tls_context, NULL, NULL, NULL, napi_default, NULL},
  };
  return napi_define_properties(env, exports, sizeof properties / sizeof *properties, properties);
}
