/* The doors to a guest's memory. Law: an environment that ends leaves nothing mapped, and detaches nothing any more. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "napi-door.h"
#include "vhost-memory.h"

static void on_cleanup(void *argument) { ((struct vhost_memory *)argument)->env = NULL; }

static void on_collected(napi_env env, void *argument, void *hint) {
  struct vhost_memory *memory = argument;
  (void)hint;
  if (memory->env != NULL) napi_remove_env_cleanup_hook(env, on_cleanup, memory);
  vhost_memory_remove_all(memory);
  vhost_memory_unref(memory);
}

/* openVhostMemory() -> external. */
static napi_value open_vhost_memory(napi_env env, napi_callback_info info) {
  napi_value external;
  (void)info;
  struct vhost_memory *memory = calloc(1, sizeof *memory);
  if (memory == NULL) return door_throw(env, "out of memory");
  memory->env = env;
  memory->refs = 1;
  DOOR_OK(napi_add_env_cleanup_hook(env, on_cleanup, memory));
  DOOR_OK(napi_create_external(env, memory, on_collected, NULL, &external));
  return external;
}

/* (memory, numbers as bigint …, fd when there is one more argument) */
static bool memory_arguments(napi_env env, napi_callback_info info, struct vhost_memory **memory, uint64_t *numbers,
                             size_t wanted, int32_t *fd) {
  napi_value arguments[6];
  size_t count = 6;
  bool lossless;
  if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != napi_ok) return false;
  if (count != wanted + (fd == NULL ? 1 : 2)) return false;
  if (napi_get_value_external(env, arguments[0], (void **)memory) != napi_ok) return false;
  for (size_t index = 0; index < wanted; index++) {
    if (napi_get_value_bigint_uint64(env, arguments[1 + index], &numbers[index], &lossless) != napi_ok) return false;
    if (!lossless) return false;
  }
  return fd == NULL || napi_get_value_int32(env, arguments[1 + wanted], fd) == napi_ok;
}

/* vhostMemoryAdd(memory, guestAddress, size, userAddress, offset, fd) -> errno. */
static napi_value add(napi_env env, napi_callback_info info) {
  struct vhost_memory *memory;
  uint64_t numbers[4];
  int32_t fd;
  if (!memory_arguments(env, info, &memory, numbers, 4, &fd)) return door_throw(env, "vhostMemoryAdd: four bigint, fd");
  return door_int(env, vhost_memory_add(memory, numbers[0], numbers[1], numbers[2], numbers[3], fd));
}

/* vhostMemoryRemove(memory, guestAddress, size, userAddress) -> errno. */
static napi_value take_out(napi_env env, napi_callback_info info) {
  struct vhost_memory *memory;
  uint64_t numbers[3];
  if (!memory_arguments(env, info, &memory, numbers, 3, NULL)) return door_throw(env, "vhostMemoryRemove: three bigint");
  return door_int(env, vhost_memory_remove(memory, numbers[0], numbers[1], numbers[2]));
}

/* vhostMemoryLost(memory) -> whether a file was cut off under it. */
static napi_value lost(napi_env env, napi_callback_info info) {
  struct vhost_memory *memory;
  napi_value result;
  if (!memory_arguments(env, info, &memory, NULL, 0, NULL)) return door_throw(env, "vhostMemoryLost(memory)");
  DOOR_OK(napi_get_boolean(env, vhost_memory_lost(memory), &result));
  return result;
}

/* vhostMemoryWindow(memory, index) -> Uint8Array, or undefined where there is none. */
static napi_value window(napi_env env, napi_callback_info info) {
  napi_value arguments[2], buffer, view;
  size_t count = 2;
  uint32_t index;
  struct vhost_memory *memory;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_value_external(env, arguments[0], (void **)&memory));
  DOOR_OK(napi_get_value_uint32(env, arguments[1], &index));
  if (index >= memory->windows_room || memory->windows[index].region == NULL) return NULL;
  struct vhost_window *window = &memory->windows[index];
  const struct vhost_region *region = window->region;
  const uint64_t at = (uint64_t)(index - region->window) << VHOST_WINDOW_BITS;
  const uint64_t left = region->size - at, length = left < VHOST_WINDOW_BYTES ? left : VHOST_WINDOW_BYTES;
  if (window->buffer == NULL) {
    const napi_status made = napi_create_external_arraybuffer(env, region->bytes + at, length, NULL, NULL, &buffer);
    if (made == napi_no_external_buffers_allowed) return NULL;
    DOOR_OK(made);
    DOOR_OK(napi_create_reference(env, buffer, 1, &window->buffer));
  } else {
    DOOR_OK(napi_get_reference_value(env, window->buffer, &buffer));
  }
  DOOR_OK(napi_create_typedarray(env, napi_uint8_array, length, buffer, 0, &view));
  return view;
}

/* vhostMemoryClose(memory): takes out every region. */
static napi_value close_vhost_memory(napi_env env, napi_callback_info info) {
  struct vhost_memory *memory;
  if (!memory_arguments(env, info, &memory, NULL, 0, NULL)) return door_throw(env, "vhostMemoryClose(memory)");
  vhost_memory_remove_all(memory);
  return NULL;
}

/* memoryFile(bytes) -> a sealed memfd, close-on-exec, or minus errno. */
static napi_value memory_file(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  int64_t bytes;
  DOOR_OK(napi_get_cb_info(env, info, &count, &argument, NULL, NULL));
  if (!door_int64(env, argument, &bytes)) return door_throw(env, "memoryFile(bytes)");
  const int fd = memfd_create("candor-in-flight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return door_int(env, -errno);
  if (ftruncate(fd, bytes) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0) {
    return door_int(env, fd);
  }
  const int error = errno;
  close(fd);
  return door_int(env, -error);
}

napi_status vhost_memory_define(napi_env env, napi_value exports) {
  const napi_property_descriptor properties[] = {
      {"openVhostMemory", NULL, open_vhost_memory, NULL, NULL, NULL, napi_default, NULL},
      {"vhostMemoryAdd", NULL, add, NULL, NULL, NULL, napi_default, NULL},
      {"vhostMemoryRemove", NULL, take_out, NULL, NULL, NULL, napi_default, NULL},
      {"vhostMemoryLost", NULL, lost, NULL, NULL, NULL, napi_default, NULL},
      {"vhostMemoryWindow", NULL, window, NULL, NULL, NULL, napi_default, NULL},
      {"vhostMemoryClose", NULL, close_vhost_memory, NULL, NULL, NULL, napi_default, NULL},
      {"memoryFile", NULL, memory_file, NULL, NULL, NULL, napi_default, NULL},
  };
  return napi_define_properties(env, exports, sizeof properties / sizeof *properties, properties);
}
