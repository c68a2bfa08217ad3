/* A JavaScript function that the event loop calls: what Node-API needs for it, in one place. */
#include "door-callback.h"

#include <stddef.h>

napi_status door_callback_open(struct door_callback *callback, napi_env env, napi_value function, const char *name) {
  napi_value resource;
  *callback = (struct door_callback){.env = env};
  napi_status status = napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &resource);
  if (status == napi_ok) status = napi_create_reference(env, function, 1, &callback->function);
  if (status == napi_ok) status = napi_async_init(env, NULL, resource, &callback->context);
  return status;
}

void door_callback_call(const struct door_callback *callback, size_t count, const napi_value *arguments) {
  napi_env env = callback->env;
  napi_value global, function;
  if (napi_get_global(env, &global) != napi_ok) return;
  if (napi_get_reference_value(env, callback->function, &function) != napi_ok) return;
  if (napi_make_callback(env, callback->context, global, function, count, arguments, NULL) != napi_pending_exception) {
    return;
  }
  napi_value error;
  if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
}

void door_callback_close(struct door_callback *callback) {
  if (callback->function != NULL) napi_delete_reference(callback->env, callback->function);
  if (callback->context != NULL) napi_async_destroy(callback->env, callback->context);
  callback->function = NULL;
  callback->context = NULL;
}
