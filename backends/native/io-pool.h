/* A pool of threads for I/O that may block: one for each device, so that no device waits for another. */
#ifndef CANDOR_IO_POOL_H
#define CANDOR_IO_POOL_H

#include <node_api.h>

napi_value io_pool_create(napi_env env, napi_callback_info info);
napi_value io_pool_submit(napi_env env, napi_callback_info info);

#endif
