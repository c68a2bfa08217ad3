/* What waits for a device: the ring for what it is good at, threads for the rest, and one way back to JavaScript. */
#ifndef CANDOR_IO_QUEUE_H
#define CANDOR_IO_QUEUE_H

#include <node_api.h>

napi_value io_queue_create(napi_env env, napi_callback_info info);
napi_value io_queue_submit(napi_env env, napi_callback_info info);
napi_value io_queue_probe_ring(napi_env env, napi_callback_info info);

#endif
