/* The way of whole pages from an image to a socket, without a copy. */
#ifndef CANDOR_PAGE_PIPE_H
#define CANDOR_PAGE_PIPE_H

#include <node_api.h>

napi_status page_pipe_define(napi_env env, napi_value exports);

#endif
