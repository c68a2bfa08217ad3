/* Calls for a process that hands its work to another one. */
#ifndef CANDOR_PROCESS_DOOR_H
#define CANDOR_PROCESS_DOOR_H

#include <node_api.h>

napi_status process_door_define(napi_env env, napi_value exports);

#endif
