/* The addon's door: calls that finish in this turn or decline, and a few questions about descriptors.
 * Law: nothing here may wait for storage (RWF_NOWAIT), but a write on file systems that cannot tell; that one is timed. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <malloc.h>
#include <node_api.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "fd-socket.h"
#include "foreign-fd.h"
#include "fs-uuid.h"
#include "io-ops.h"
#include "io-queue.h"
#include "io-stall.h"
#include "napi-door.h"
#include "page-pipe.h"
#include "process-door.h"
#include "io-flusher.h"
#include "service-manager.h"
#include "socket-io.h"
#include "socket-peer.h"
#include "tls-context.h"
#include "tls-door.h"
#include "vhost-memory.h"
#include "vhost-queue.h"

#define MMAP_THRESHOLD_BYTES (128 * 1024)

static bool range_arguments(napi_env env, napi_callback_info info, struct door_range *range, int32_t *mode) {
  napi_value arguments[6];
  size_t count = 6;
  if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != napi_ok || count != 6) return false;
  return door_range(env, arguments, range) && range->bytes != NULL && range->length <= range->room &&
         napi_get_value_int32(env, arguments[5], mode) == napi_ok;
}

/* readNow(fd, target, start, length, offset, nowait 0|1) -> outcome. Anything short of the whole length is
 * WOULD_BLOCK: the waiting twin finds out whether the page was missing or the file ends there. */
static napi_value read_now(napi_env env, napi_callback_info info) {
  struct door_range range;
  int32_t nowait;
  if (!range_arguments(env, info, &range, &nowait)) return door_throw(env, "readNow: the range is not sound");
  struct iovec part = {.iov_base = range.bytes, .iov_len = (size_t)range.length};
  const ssize_t done = preadv2(range.fd, &part, 1, range.offset, nowait ? RWF_NOWAIT : 0);
  if (done == range.length) return door_int(env, 0);
  if (done >= 0 || errno == EAGAIN || errno == EINTR) return door_int(env, OUTCOME_WOULD_BLOCK);
  return door_int(env, errno);
}

/* writeNow(fd, source, start, length, offset, nowait 0|1) -> outcome, with STALLED where it took long. With nowait
 * a part may have landed when WOULD_BLOCK is returned: the waiting twin writes the whole again. */
static napi_value write_now(napi_env env, napi_callback_info info) {
  struct door_range range;
  int32_t nowait;
  if (!range_arguments(env, info, &range, &nowait)) return door_throw(env, "writeNow: the range is not sound");
  if (nowait) {
    struct iovec part = {.iov_base = range.bytes, .iov_len = (size_t)range.length};
    const ssize_t done = pwritev2(range.fd, &part, 1, range.offset, RWF_NOWAIT);
    if (done == range.length) return door_int(env, 0);
    if (done >= 0 || errno == EAGAIN || errno == EINTR) return door_int(env, OUTCOME_WOULD_BLOCK);
    return door_int(env, errno);
  }
  const int64_t began = io_coarse_ms();
  const int outcome = io_write_all(range.fd, range.bytes, range.length, range.offset, 0);
  return door_int(env, io_stalled_since(began) ? outcome | OUTCOME_STALLED : outcome);
}

/* cached(fd, offset) -> 1 when the byte there can be read without waiting, 0 when not. */
static napi_value cached(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  size_t count = 2;
  int32_t fd;
  int64_t offset;
  uint8_t byte;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, arguments[0], &fd));
  DOOR_OK(napi_get_value_int64(env, arguments[1], &offset));
  struct iovec part = {.iov_base = &byte, .iov_len = 1};
  return door_int(env, preadv2(fd, &part, 1, offset, RWF_NOWAIT) == 1);
}

/* probe(fd) -> 0, or the errno of write-back that failed and was not told yet. Starts no I/O and waits for none:
 * the range lies past the end (sync_file_range(2)). */
static napi_value probe(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  int32_t fd;
  DOOR_OK(napi_get_cb_info(env, info, &count, &argument, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, argument, &fd));
  const int result = sync_file_range(fd, INT64_MAX - 4096, 1, SYNC_FILE_RANGE_WAIT_BEFORE);
  return door_int(env, result == 0 || errno == ESPIPE || errno == EINVAL ? 0 : errno);
}

/* lookAt(fd, into: Float64Array(2)) -> errno; into = [size in bytes, links], for once per batch. As this host knows them
 * (statx(2), AT_STATX_DONT_SYNC): fstat would ask the server of a network file system or of FUSE, and wait for it. */
static napi_value look_at(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  size_t count = 2, length;
  int32_t fd;
  void *data;
  napi_typedarray_type type;
  struct statx status;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, arguments[0], &fd));
  DOOR_OK(napi_get_typedarray_info(env, arguments[1], &type, &length, &data, NULL, NULL));
  if (type != napi_float64_array || length < 2) return door_throw(env, "lookAt(fd, Float64Array(2))");
  const int flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC;
  if (statx(fd, "", flags, STATX_SIZE | STATX_NLINK, &status) != 0) return door_int(env, errno);
  ((double *)data)[0] = (double)status.stx_size;
  ((double *)data)[1] = (double)status.stx_nlink;
  return door_int(env, 0);
}

/* fileSystemType(fd) -> the magic number of statfs(2), or minus errno. */
static napi_value file_system_type(napi_env env, napi_callback_info info) {
  napi_value argument, result;
  size_t count = 1;
  int32_t fd;
  struct statfs status;
  DOOR_OK(napi_get_cb_info(env, info, &count, &argument, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, argument, &fd));
  const double answer = fstatfs(fd, &status) == 0 ? (double)(uint32_t)status.f_type : -(double)errno;
  DOOR_OK(napi_create_double(env, answer, &result));
  return result;
}

/* logicalBlockSize(fd) -> bytes of a block device's smallest request (BLKSSZGET), or minus errno. */
static napi_value logical_block_size(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  int32_t fd;
  int bytes = 0;
  DOOR_OK(napi_get_cb_info(env, info, &count, &argument, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, argument, &fd));
  return door_int(env, ioctl(fd, BLKSSZGET, &bytes) == 0 ? bytes : -errno);
}

/* duplicate(fd) -> a descriptor of the same open file that the caller owns, close-on-exec, or minus errno. */
static napi_value duplicate(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  int32_t fd;
  DOOR_OK(napi_get_cb_info(env, info, &count, &argument, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, argument, &fd));
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  return door_int(env, copy >= 0 ? copy : -errno);
}

/* socketPair(into: Int32Array(2)) -> errno. Unix stream sockets, close-on-exec. */
static napi_value socket_pair(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1, length;
  void *data;
  napi_typedarray_type type;
  DOOR_OK(napi_get_cb_info(env, info, &count, &argument, NULL, NULL));
  DOOR_OK(napi_get_typedarray_info(env, argument, &type, &length, &data, NULL, NULL));
  if (type != napi_int32_array || length < 2) return door_throw(env, "socketPair(Int32Array(2))");
  return door_int(env, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, data) == 0 ? 0 : errno);
}

/* endAtOnce(code): _exit(2), which waits for no thread. */
static napi_value end_at_once(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  int32_t code;
  DOOR_OK(napi_get_cb_info(env, info, &count, &argument, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, argument, &code));
  _exit(code);
}

static bool byte_arguments(napi_env env, napi_callback_info info, int32_t *fd, int64_t *byte) {
  napi_value arguments[2];
  size_t count = 2;
  return napi_get_cb_info(env, info, &count, arguments, NULL, NULL) == napi_ok &&
         napi_get_value_int32(env, arguments[0], fd) == napi_ok && door_int64(env, arguments[1], byte);
}

/* lockByte(fd, byte) -> errno. A read lock of the open file description (F_OFD_SETLK): shared, gone with it. */
static napi_value lock_byte(napi_env env, napi_callback_info info) {
  int32_t fd;
  int64_t byte;
  if (!byte_arguments(env, info, &fd, &byte)) return door_throw(env, "lockByte(fd, byte)");
  struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
  return door_int(env, fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : errno);
}

/* byteLocked(fd, byte) -> 1 when another open file description has a lock on the byte, 0 when none has, minus errno. */
static napi_value byte_locked(napi_env env, napi_callback_info info) {
  int32_t fd;
  int64_t byte;
  if (!byte_arguments(env, info, &fd, &byte)) return door_throw(env, "byteLocked(fd, byte)");
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
  return door_int(env, fcntl(fd, F_OFD_GETLK, &lock) == 0 ? lock.l_type != F_UNLCK : -errno);
}

static napi_value init(napi_env env, napi_value exports) {
#ifdef __GLIBC__
  /* glibc raises the size from which it maps memory by itself as soon as something large is freed; after that buffers of
   * a megabyte come from a heap that never shrinks. Fixed, each large buffer goes back when it is freed. */
  mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES);
#endif
#define DOOR(name, function) {name, NULL, function, NULL, NULL, NULL, napi_default, NULL}
  const napi_property_descriptor properties[] = {
      DOOR("readNow", read_now),
      DOOR("writeNow", write_now),
      DOOR("cached", cached),
      DOOR("probe", probe),
      DOOR("lookAt", look_at),
      DOOR("fileSystemType", file_system_type),
      DOOR("fileSystemUuid", file_system_uuid),
      DOOR("logicalBlockSize", logical_block_size),
      DOOR("duplicate", duplicate),
      DOOR("socketPair", socket_pair),
      DOOR("endAtOnce", end_at_once),
      DOOR("sendTo", service_manager_send),
      DOOR("becomeIoFlusher", io_flusher_become),
      DOOR("lockByte", lock_byte),
      DOOR("byteLocked", byte_locked),
      DOOR("hungUp", hung_up),
      DOOR("isOwnEnd", is_own_end),
      DOOR("isListening", is_listening),
      DOOR("closeForeign", close_foreign),
      DOOR("isMemoryFile", is_memory_file),
      DOOR("unreadTail", unread_tail),
      DOOR("createQueue", io_queue_create),
      DOOR("submit", io_queue_submit),
      DOOR("probeRing", io_queue_probe_ring),
  };
  DOOR_OK(napi_define_properties(env, exports, sizeof properties / sizeof *properties, properties));
  DOOR_OK(socket_io_define(env, exports));
  DOOR_OK(page_pipe_define(env, exports));
  DOOR_OK(tls_context_define(env, exports));
  DOOR_OK(tls_door_define(env, exports));
  DOOR_OK(fd_socket_define(env, exports));
  DOOR_OK(vhost_memory_define(env, exports));
  DOOR_OK(vhost_queue_define(env, exports));
  DOOR_OK(process_door_define(env, exports));
  return exports;
}

NAPI_MODULE(NODE_GYP_MODULE_NAME, init)
