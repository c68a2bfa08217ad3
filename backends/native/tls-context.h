/* What a server shows of itself in TLS, and whom it believes: an SSL_CTX of OpenSSL's, made once and shared by threads. */
#ifndef CANDOR_TLS_CONTEXT_H
#define CANDOR_TLS_CONTEXT_H

#include <node_api.h>
#include <stddef.h>

#define TLS_REASON_BYTES 256

napi_status tls_context_define(napi_env env, napi_value exports);

/* Why OpenSSL's last call in this thread failed, in its own words; empty when it said nothing. Its errors are forgotten. */
void tls_take_reason(char reason[TLS_REASON_BYTES]);

#endif
