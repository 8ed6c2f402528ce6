/* Counts the file operations of a process and lets one of them fail. Preloaded: see harness.py.

   Counted is what changes files under `root`: opening to write, write, fsync, rename, link, unlink,
   mkdir, rmdir, truncate. The count stands in memory that all processes of a test share, so "the
   17th operation" is the 17th of them all, whichever process comes to it. A full disk stays full:
   from the operation on, all that needs room fails. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, HALF, FULL, BROKEN };  /* HALF: a write stops half-way, then the kill */

struct plan {
  int64_t done;  /* operations so far */
  int64_t at;    /* the one that fails, from 1; 0: none */
  int64_t mode;
  char root[PATH_MAX];
};

static struct plan *plan;
static char ours[4096];  /* descriptors that were opened to write under the root */

__attribute__((constructor)) static void start(void) {
  const char *name = getenv("FAULT_PLAN");
  int file = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *memory = mmap(0, sizeof(struct plan), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  plan = memory == MAP_FAILED ? 0 : memory;
}

static int under_root(int folder, const char *path) {
  char place[PATH_MAX * 2];
  if (!plan || !plan->root[0] || !path) return 0;
  if (path[0] != '/') {
    char link[64];
    ssize_t n;
    if (folder == AT_FDCWD) {
      if (!getcwd(place, PATH_MAX)) return 0;
      n = strlen(place);
    } else {
      snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
      n = readlink(link, place, PATH_MAX - 1);
      if (n < 0) return 0;
    }
    snprintf(place + n, PATH_MAX, "/%s", path);
    path = place;
  }
  return !strncmp(path, plan->root, strlen(plan->root));
}

/* Counts an operation, which may need room on the disk; what is to happen to it. */
static int next(int needs_room) {
  int64_t number = __atomic_add_fetch(&plan->done, 1, __ATOMIC_SEQ_CST);
  if (plan->mode == FULL) return plan->at && number >= plan->at && needs_room ? FULL : COUNT;
  return number == plan->at ? (int)plan->mode : COUNT;
}

/* Ends the process, or returns the error that the operation is to have; 0: it goes on. */
static int meets(int mode) {
  if (mode == KILL || mode == HALF) kill(getpid(), SIGKILL);
  return mode == FULL ? ENOSPC : mode == BROKEN ? EIO : 0;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define FAIL_IF(condition, needs_room) \
  if (condition) { int error = meets(next(needs_room)); if (error) { errno = error; return -1; } }

static int opened(int file, int watched) {
  if (file >= 0 && file < (int)sizeof ours) ours[file] = watched;
  return file;
}

static int writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT; }

#define OPEN(name, folder, declare, ...) \
  int name declare { \
    REAL(name); \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
      va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); \
    } \
    int watched = writes(flags) && under_root(folder, path); \
    FAIL_IF(watched, flags & O_CREAT) \
    return opened(real(__VA_ARGS__, mode), watched); \
  }
OPEN(open, AT_FDCWD, (const char *path, int flags, ...), path, flags)
OPEN(open64, AT_FDCWD, (const char *path, int flags, ...), path, flags)
OPEN(openat, folder, (int folder, const char *path, int flags, ...), folder, path, flags)
OPEN(openat64, folder, (int folder, const char *path, int flags, ...), folder, path, flags)

static int is_ours(int file) { return plan && file >= 0 && file < (int)sizeof ours && ours[file]; }

ssize_t write(int file, const void *data, size_t size) {
  REAL(write);
  if (is_ours(file)) {
    int mode = next(1);
    if (mode == HALF && size > 1) real(file, data, size / 2);
    int error = meets(mode);
    if (error) { errno = error; return -1; }
  }
  return real(file, data, size);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
  REAL(pwrite64);
  FAIL_IF(is_ours(file), 1)
  return real(file, data, size, at);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
  REAL(writev);
  FAIL_IF(is_ours(file), 1)
  return real(file, parts, count);
}

int fsync(int file) { REAL(fsync); FAIL_IF(is_ours(file), 0) return real(file); }
int fdatasync(int file) { REAL(fdatasync); FAIL_IF(is_ours(file), 0) return real(file); }
int ftruncate(int file, off_t n) { REAL(ftruncate); FAIL_IF(is_ours(file), 0) return real(file, n); }
int ftruncate64(int file, off64_t n) {
  REAL(ftruncate64);
  FAIL_IF(is_ours(file), 0)
  return real(file, n);
}
int close(int file) {
  REAL(close);
  if (file >= 0 && file < (int)sizeof ours) ours[file] = 0;
  return real(file);
}

#define ON_PATH(name, declare, needs_room, place, ...) \
  int name declare { REAL(name); FAIL_IF(under_root(place), needs_room) return real(__VA_ARGS__); }
#define COMMA ,
ON_PATH(rename, (const char *a, const char *b), 0, AT_FDCWD COMMA b, a, b)
ON_PATH(renameat, (int x, const char *a, int y, const char *b), 0, y COMMA b, x, a, y, b)
ON_PATH(link, (const char *a, const char *b), 1, AT_FDCWD COMMA b, a, b)
ON_PATH(linkat, (int x, const char *a, int y, const char *b, int f), 1, y COMMA b, x, a, y, b, f)
ON_PATH(unlink, (const char *a), 0, AT_FDCWD COMMA a, a)
ON_PATH(unlinkat, (int x, const char *a, int f), 0, x COMMA a, x, a, f)
ON_PATH(mkdir, (const char *a, mode_t m), 1, AT_FDCWD COMMA a, a, m)
ON_PATH(mkdirat, (int x, const char *a, mode_t m), 1, x COMMA a, x, a, m)
ON_PATH(rmdir, (const char *a), 0, AT_FDCWD COMMA a, a)
ON_PATH(truncate, (const char *a, off_t n), 0, AT_FDCWD COMMA a, a, n)
