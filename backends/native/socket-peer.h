/* What the kernel knows of the other end of a socket that nobody reads. */
#ifndef CANDOR_SOCKET_PEER_H
#define CANDOR_SOCKET_PEER_H

#include <node_api.h>

/* Of a Unix stream socket 1 when it listens, 0 when it is connected; minus errno of anything else. */
int unix_stream_listens(int fd);

napi_value is_listening(napi_env env, napi_callback_info info);
napi_value hung_up(napi_env env, napi_callback_info info);
napi_value is_own_end(napi_env env, napi_callback_info info);
napi_value unread_tail(napi_env env, napi_callback_info info);

#endif
