/* A JavaScript function that the event loop calls. Law: an exception that escapes it is the process's uncaught one. */
#ifndef CANDOR_DOOR_CALLBACK_H
#define CANDOR_DOOR_CALLBACK_H

#include <node_api.h>

struct door_callback {
  napi_env env;
  napi_ref function;
  napi_async_context context;
};

napi_status door_callback_open(struct door_callback *callback, napi_env env, napi_value function, const char *name);
/* Calls from outside of JavaScript, in a handle scope that the caller has opened. */
void door_callback_call(const struct door_callback *callback, size_t count, const napi_value *arguments);
void door_callback_close(struct door_callback *callback);

#endif
