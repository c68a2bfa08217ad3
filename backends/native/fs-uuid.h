#ifndef CANDOR_FS_UUID_H
#define CANDOR_FS_UUID_H

#include <node_api.h>

napi_value file_system_uuid(napi_env env, napi_callback_info info);

#endif
