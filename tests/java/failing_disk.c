/* A disk that fails: preloaded (LD_PRELOAD) it counts each change below the folder that FAILING_DISK names, an open for writing,
 * a write, a sync, a rename or a removal, and has the n-th fail, of a write half done; and, if it dies, all later ones too.
 * Whoever renames "/failing-disk" to "/n", or to "/n/dies", begins to count anew; n = 0 mends it. Linux alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long left;
static int dies;

static void *next(const char *name) { return dlsym(RTLD_NEXT, name); }

static int is_here(const char *path) {
  const char *folder = getenv("FAILING_DISK");
  return folder != NULL && strncmp(path, folder, strlen(folder)) == 0;
}

static int is_open_here(int file) {
  char link[64], path[4096] = "";
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  return readlink(link, path, sizeof path - 1) > 0 && is_here(path);
}

/* Whether this change fails. */
static int fails(void) {
  if (left == 0 || --left > 0) return 0;
  left = dies; /* and so the next one, if it died */
  errno = EIO;
  return 1;
}

int rename(const char *from, const char *to) {
  if (strcmp(from, "/failing-disk") == 0) {
    left = atol(to + 1);
    dies = strstr(to, "dies") != NULL;
    return 0;
  }
  if (is_here(from) && fails()) return -1;
  return ((int (*)(const char *, const char *))next("rename"))(from, to);
}

int remove(const char *path) {
  if (is_here(path) && fails()) return -1;
  return ((int (*)(const char *))next("remove"))(path);
}

int fsync(int file) {
  if (is_open_here(file) && fails()) return -1;
  return ((int (*)(int))next("fsync"))(file);
}

ssize_t write(int file, const void *bytes, size_t count) {
  ssize_t (*really)(int, const void *, size_t) = (ssize_t(*)(int, const void *, size_t))next("write");
  const int was_dead = dies && left == 1;
  if (!is_open_here(file) || !fails()) return really(file, bytes, count);
  if (!was_dead && really(file, bytes, count / 2) < 0) return -1;
  errno = EIO;
  return -1;
}

static int opened(const char *name, const char *path, int flags, mode_t mode) {
  if ((flags & (O_WRONLY | O_RDWR)) && is_here(path) && fails()) return -1;
  return ((int (*)(const char *, int, ...))next(name))(path, flags, mode);
}

int open(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const mode_t mode = va_arg(more, mode_t);
  va_end(more);
  return opened("open", path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const mode_t mode = va_arg(more, mode_t);
  va_end(more);
  return opened("open64", path, flags, mode);
}
