/* A datagram to the service manager. */
#ifndef CANDOR_SERVICE_MANAGER_H
#define CANDOR_SERVICE_MANAGER_H

#include <node_api.h>

napi_value service_manager_send(napi_env env, napi_callback_info info);

#endif
