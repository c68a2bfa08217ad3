/* PR_SET_IO_FLUSHER for the calling thread. */
#ifndef CANDOR_IO_FLUSHER_H
#define CANDOR_IO_FLUSHER_H

#include <node_api.h>

napi_value io_flusher_become(napi_env env, napi_callback_info info);

#endif
