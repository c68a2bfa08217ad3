/* Pages of the page cache on their way to a socket (splice(2)), through a pipe that each thread has of its own. Law: the
 * pipe is empty between two turns; what is not in the page cache is not asked for, since splice would wait for it.
 *
 *   pagesIn: image -> pipe     whole, or nothing: what comes of it is known before a reply is begun
 *   pagesOut: pipe -> socket   as much as the peer's buffer takes
 *   pagesTake: pipe -> memory  the rest
 *   pagesDrop                  all of it, since there is no reply
 */
#include "page-pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io-ops.h"
#include "io-stall.h"
#include "napi-door.h"

#define PAGE 4096
/* A pipe without privilege has at most so much (pipe(7), /proc/sys/fs/pipe-max-size), a page in each slot. */
#define PIPE_BYTES (1 << 20)
#define PAGES_MAX (PIPE_BYTES / PAGE)

static _Thread_local struct {
  int ends[2];
  int64_t pages; /* 0: there is none */
  bool watched;  /* its end is seen to */
} pages_pipe;

static void close_pipe(void *unused) {
  (void)unused;
  if (pages_pipe.pages == 0) return;
  close(pages_pipe.ends[0]);
  close(pages_pipe.ends[1]);
  pages_pipe.pages = 0;
}

/* Whether there is one: where descriptors or its memory cannot be had, replies are copied. */
static bool open_pipe(napi_env env) {
  if (pages_pipe.pages != 0) return true;
  if (pipe2(pages_pipe.ends, O_CLOEXEC | O_NONBLOCK) != 0) return false;
  const int bytes = fcntl(pages_pipe.ends[1], F_SETPIPE_SZ, PIPE_BYTES);
  pages_pipe.pages = (bytes > 0 ? bytes : fcntl(pages_pipe.ends[1], F_GETPIPE_SZ)) / PAGE;
  if (!pages_pipe.watched) napi_add_env_cleanup_hook(env, close_pipe, NULL);
  pages_pipe.watched = true;
  return true;
}

/* Whether all of these pages are in the page cache and can be read (mincore(2)), by a mapping that nobody touches. Those who
 * neither own a file nor may write it are told that all of it is there, and so are not asked for; nor are larger pages. */
static bool are_cached(int fd, int64_t first, int64_t pages) {
  unsigned char here[PAGES_MAX];
  if (sysconf(_SC_PAGESIZE) != PAGE || faccessat(fd, "", W_OK, AT_EMPTY_PATH | AT_EACCESS) != 0) return false;
  void *map = mmap(NULL, (size_t)(pages * PAGE), PROT_NONE, MAP_SHARED, fd, first * PAGE);
  if (map == MAP_FAILED) return false;
  bool all = mincore(map, (size_t)(pages * PAGE), here) == 0;
  munmap(map, (size_t)(pages * PAGE));
  for (int64_t page = 0; all && page < pages; page++) all = (here[page] & 1) != 0;
  return all;
}

/* pagesIn(fd, offset, length) -> 0 when the pipe has them, else WOULD_BLOCK, which says nothing of why; with STALLED where it
 * took long. Pages that leave the cache between the two calls are waited for. */
static napi_value pages_in(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  size_t count = 3;
  int32_t fd;
  int64_t offset, length;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, arguments[0], &fd));
  if (!door_int64(env, arguments[1], &offset) || !door_int64(env, arguments[2], &length) || length == 0) {
    return door_throw(env, "pagesIn: the range is not sound");
  }
  const int64_t first = offset / PAGE, pages = (offset + length - 1) / PAGE - first + 1;
  if (pages > PAGES_MAX || !open_pipe(env) || pages > pages_pipe.pages || !are_cached(fd, first, pages)) {
    return door_int(env, OUTCOME_WOULD_BLOCK);
  }
  const int64_t began = io_coarse_ms();
  off64_t at = offset;
  while (at < offset + length) {
    const ssize_t moved = splice(fd, &at, pages_pipe.ends[1], NULL, (size_t)(offset + length - at), SPLICE_F_NONBLOCK);
    if (moved < 0 && errno == EINTR) continue;
    if (moved <= 0) break;
  }
  if (at == offset + length) return door_int(env, io_stalled_since(began) ? OUTCOME_STALLED : 0);
  close_pipe(NULL);
  return door_int(env, OUTCOME_WOULD_BLOCK);
}

/* pagesOut(socket, length) -> bytes that the peer's buffer took of what is in the pipe, or minus errno. The socket is
 * one that does not wait, as all of libuv's. */
static napi_value pages_out(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  size_t count = 2;
  int32_t fd;
  int64_t length, done = 0;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_value_int32(env, arguments[0], &fd));
  if (!door_int64(env, arguments[1], &length)) return door_throw(env, "pagesOut(socket, length)");
  while (done < length) {
    const ssize_t moved = splice(pages_pipe.ends[0], NULL, fd, NULL, (size_t)(length - done), SPLICE_F_NONBLOCK);
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0 && errno != EAGAIN && done == 0) return door_int(env, -errno);
    if (moved <= 0) break;
    done += moved;
  }
  return door_int(env, (int)done);
}

/* pagesTake(bytes, start, length): the last bytes in the pipe, into memory. */
static napi_value pages_take(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  size_t count = 3, size = 0;
  int64_t start, length, done = 0;
  void *data = NULL;
  napi_typedarray_type type;
  DOOR_OK(napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  DOOR_OK(napi_get_typedarray_info(env, arguments[0], &type, &size, &data, NULL, NULL));
  if (type != napi_uint8_array || !door_int64(env, arguments[1], &start) || !door_int64(env, arguments[2], &length) ||
      start > (int64_t)size || length > (int64_t)size - start) {
    return door_throw(env, "pagesTake: the range is not sound");
  }
  while (done < length) {
    const ssize_t got = read(pages_pipe.ends[0], (uint8_t *)data + start + done, (size_t)(length - done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return door_throw(env, "pagesTake: the pipe has less than it was given");
    done += got;
  }
  return NULL;
}

static napi_value pages_drop(napi_env env, napi_callback_info info) {
  (void)env, (void)info;
  close_pipe(NULL);
  return NULL;
}

napi_status page_pipe_define(napi_env env, napi_value exports) {
  const napi_property_descriptor properties[] = {
      {"pagesIn", NULL, pages_in, NULL, NULL, NULL, napi_default, NULL},
      {"pagesOut", NULL, pages_out, NULL, NULL, NULL, napi_default, NULL},
      {"pagesTake", NULL, pages_take, NULL, NULL, NULL, napi_default, NULL},
      {"pagesDrop", NULL, pages_drop, NULL, NULL, NULL, napi_default, NULL},
  };
  return napi_define_properties(env, exports, sizeof properties / sizeof *properties, properties);
}
