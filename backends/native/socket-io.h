/* The socket half of the addon. */
#ifndef CANDOR_SOCKET_IO_H
#define CANDOR_SOCKET_IO_H

#include <node_api.h>

napi_status socket_io_define(napi_env env, napi_value exports);

#endif
