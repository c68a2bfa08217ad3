/* A thread that writes others' dirty pages out must not wait for dirty pages to be written out (prctl(2)). */
#include "io-flusher.h"

#include <errno.h>
#include <sys/prctl.h>

#include "napi-door.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

/* becomeIoFlusher() -> errno. Speaks of this thread and of those that it and they start from now on. */
napi_value io_flusher_become(napi_env env, napi_callback_info info) {
  (void)info;
  return door_int(env, prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) == 0 ? 0 : errno);
}
