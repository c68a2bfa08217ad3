/* The half of the addon that sends and receives descriptors. */
#ifndef CANDOR_FD_SOCKET_H
#define CANDOR_FD_SOCKET_H

#include <node_api.h>

napi_status fd_socket_define(napi_env env, napi_value exports);

#endif
