/* The UUID of the file system that a descriptor lies on. Law: an answer is the file system's own, or none is given. */
#include "fs-uuid.h"

#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "napi-door.h"

/* What tells a file system's UUID: include/uapi/linux/fs.h since 6.9, ext4's own since 6.0, XFS's geometry since ever.
 * Written out here, since the headers that candor is built with may be older than the kernel it runs on. */
struct any_fsuuid { uint8_t length, uuid[16]; };
struct ext4_fsuuid { uint32_t length, flags; uint8_t uuid[16]; };
struct xfs_geometry_v1 { uint8_t before[64], uuid[16], after[32]; };
#define GET_ANY_FSUUID _IOR(0x15, 0, struct any_fsuuid)
#define GET_EXT4_FSUUID _IOC(_IOC_READ, 'f', 44, 8)
#define GET_XFS_GEOMETRY_V1 _IOR('X', 100, struct xfs_geometry_v1)

/* fileSystemUuid(fd) -> 32 hexadecimal digits, or '' where the kernel does not tell. */
napi_value file_system_uuid(napi_env env, napi_callback_info info) {
  napi_value argument, result;
  size_t count = 1;
  int32_t fd;
  struct any_fsuuid any = {0};
  struct ext4_fsuuid ext4 = {.length = sizeof ext4.uuid};
  struct xfs_geometry_v1 xfs;
  char text[2 * sizeof any.uuid + 1] = "";
  DOOR_OK(napi_get_cb_info(env, info, &count, &argument, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, argument, &fd));
  const uint8_t *uuid = NULL;
  if (ioctl(fd, GET_ANY_FSUUID, &any) == 0 && any.length == sizeof any.uuid) uuid = any.uuid;
  else if (ioctl(fd, GET_EXT4_FSUUID, &ext4) == 0) uuid = ext4.uuid;
  else if (ioctl(fd, GET_XFS_GEOMETRY_V1, &xfs) == 0) uuid = xfs.uuid;
  for (size_t at = 0; uuid != NULL && at < sizeof any.uuid; at++) snprintf(text + 2 * at, 3, "%02x", uuid[at]);
  DOOR_OK(napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &result));
  return result;
}
