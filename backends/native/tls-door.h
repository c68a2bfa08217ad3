/* The way of a socket into TLS. */
#ifndef CANDOR_TLS_DOOR_H
#define CANDOR_TLS_DOOR_H

#include <node_api.h>

napi_status tls_door_define(napi_env env, napi_value exports);

#endif
