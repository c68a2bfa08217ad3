/* The socket half of the addon. */
#ifndef CANDOR_SOCKET_IO_H
#define CANDOR_SOCKET_IO_H

#include <node_api.h>

napi_status socket_io_define(napi_env env, napi_value exports);

/* errno; EOPNOTSUPP but for Unix sockets: TCP's buffer grows until it is set. SO_SNDBUF of socket(7), which the kernel doubles,
 * and cuts at net.core.wmem_max unless the caller has CAP_NET_ADMIN. */
int socket_send_buffer(int fd, int bytes);

#endif
