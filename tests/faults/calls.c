/* Preloaded: fails, limits, counts and records the calls that change the files under one folder.
 *
 * The process that is tested controls it through the functions faults_*, so it needs no environment of its own. A record
 * is a sequence of events: op (1 byte), inode, offset, length of the data, length of the path (8 bytes each), path, data.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static char root[PATH_MAX];
static long counted, first_failing = -1, last_failing = -1, space = -1;
static int code, record = -1;

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

void faults_root(const char *path) { snprintf(root, sizeof root, "%s", path); }
/* From the first-th call from now on until the last-th one, each fails with the code; -1 kills the process. */
void faults_fail(long first, long last, int with) { counted = 0; first_failing = first; last_failing = last; code = with; }
long faults_counted(void) { return counted; }
/* Bytes by which files may still grow; -1 without a limit. */
void faults_space(long bytes) { space = bytes; }
void faults_record(int descriptor) { record = descriptor; }

static int inside(const char *path) {
    size_t length = strlen(root);
    return length && !strncmp(path, root, length) && (!path[length] || path[length] == '/');
}

static int path_of(int descriptor, char *path) {
    char link[64];
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    errno = saved;
    path[length < 0 ? 0 : length] = 0;
    return length > 0 && inside(path);
}

static int fails(void) {
    long now = ++counted;
    if (first_failing < 0 || now < first_failing || now > last_failing) return 0;
    if (code == -1) kill(getpid(), SIGKILL);
    errno = code;
    return 1;
}

static void raw(const void *data, size_t length) {
    REAL(write);
    const char *at = data;
    while (length) {
        ssize_t written = real(record, at, length);
        if (written <= 0) return;
        at += written;
        length -= written;
    }
}

static void event(char op, uint64_t inode, uint64_t offset, const char *path, const void *data, uint64_t length) {
    if (record < 0) return;
    int saved = errno;
    uint64_t head[4] = {inode, offset, length, path ? strlen(path) : 0};
    raw(&op, 1);
    raw(head, sizeof head);
    raw(path, head[3]);
    raw(data, data ? length : 0);
    errno = saved;
}

void faults_mark(uint64_t number) { event('M', number, 0, NULL, NULL, 0); }

static ssize_t written(int descriptor, const void *data, size_t length, off_t offset, ssize_t (*call)(int, const void *, size_t, off_t)) {
    char path[PATH_MAX];
    if (!path_of(descriptor, path)) return call(descriptor, data, length, offset);
    pthread_mutex_lock(&lock);
    ssize_t result = -1;
    struct stat status;
    fstat(descriptor, &status);
    off_t at = offset >= 0 ? offset : fcntl(descriptor, F_GETFL) & O_APPEND ? status.st_size : lseek(descriptor, 0, SEEK_CUR);
    if (!fails()) {
        off_t growth = at + (off_t)length - status.st_size;
        if (space >= 0 && growth > space) {
            length = growth - space < (off_t)length ? length - (growth - space) : 0;
            growth = space;
        }
        if (!length) errno = ENOSPC;
        else result = call(descriptor, data, length, offset);
        if (result > 0) {
            if (space >= 0 && growth > 0) space -= growth;
            event('W', status.st_ino, at, NULL, data, result);
        }
    }
    pthread_mutex_unlock(&lock);
    return result;
}

static ssize_t plain_write(int descriptor, const void *data, size_t length, off_t offset) {
    REAL(write);
    (void)offset;
    return real(descriptor, data, length);
}
static ssize_t placed_write(int descriptor, const void *data, size_t length, off_t offset) {
    REAL(pwrite);
    return real(descriptor, data, length, offset);
}
ssize_t write(int descriptor, const void *data, size_t length) { return written(descriptor, data, length, -1, plain_write); }
ssize_t pwrite(int descriptor, const void *data, size_t length, off_t offset) { return written(descriptor, data, length, offset, placed_write); }
ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t offset) { return written(descriptor, data, length, offset, placed_write); }

static int synced(int descriptor, int (*real)(int)) {
    char path[PATH_MAX];
    if (!path_of(descriptor, path)) return real(descriptor);
    pthread_mutex_lock(&lock);
    struct stat status;
    fstat(descriptor, &status);
    int result = fails() ? -1 : record < 0 ? real(descriptor) : 0; /* a recorded disk is one of our own */
    if (!result) event(S_ISDIR(status.st_mode) ? 'D' : 'S', status.st_ino, 0, path, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int fsync(int descriptor) { REAL(fsync); return synced(descriptor, real); }
int fdatasync(int descriptor) { REAL(fdatasync); return synced(descriptor, real); }

static int truncated(int descriptor, off_t length, int (*real)(int, off_t)) {
    char path[PATH_MAX];
    if (!path_of(descriptor, path)) return real(descriptor, length);
    pthread_mutex_lock(&lock);
    struct stat status;
    fstat(descriptor, &status);
    int result = fails() ? -1 : real(descriptor, length);
    if (!result) event('T', status.st_ino, length, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int ftruncate(int descriptor, off_t length) { REAL(ftruncate); return truncated(descriptor, length, real); }
int ftruncate64(int descriptor, off64_t length) { REAL(ftruncate); return truncated(descriptor, length, real); }

static int opened(int folder, const char *path, int flags, mode_t mode) {
    REAL(openat);
    if (!inside(path)) return real(folder, path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat status;
    int saved = errno, existed = !stat(path, &status), result = -1;
    errno = saved;
    if (!fails()) {
        if ((flags & O_CREAT) && !existed && !space) errno = ENOSPC;
        else result = real(folder, path, flags, mode);
    }
    if (result >= 0 && !fstat(result, &status)) {
        if ((flags & O_CREAT) && !existed) event('C', status.st_ino, 0, path, NULL, 0);
        else if (flags & O_TRUNC) event('T', status.st_ino, 0, NULL, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return result;
}
#define MODE \
    mode_t mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }
int open(const char *path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE return opened(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE return opened(folder, path, flags, mode); }

int unlink(const char *path) {
    REAL(unlink);
    if (!inside(path)) return real(path);
    pthread_mutex_lock(&lock);
    int result = fails() ? -1 : real(path);
    if (!result) event('U', 0, 0, path, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int rename(const char *from, const char *to) {
    REAL(rename);
    if (!inside(from)) return real(from, to);
    pthread_mutex_lock(&lock);
    int result = fails() ? -1 : real(from, to);
    if (!result) event('R', 0, 0, from, to, strlen(to));
    pthread_mutex_unlock(&lock);
    return result;
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    if (!inside(path)) return real(path, mode);
    pthread_mutex_lock(&lock);
    int result = -1;
    if (!fails()) {
        if (!space) errno = ENOSPC;
        else result = real(path, mode);
    }
    if (!result) event('K', 0, 0, path, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

static void *mapped(void *at, size_t length, int protection, int flags, int descriptor, off_t offset) {
    REAL(mmap);
    char path[PATH_MAX];
    if (descriptor < 0 || !path_of(descriptor, path)) return real(at, length, protection, flags, descriptor, offset);
    pthread_mutex_lock(&lock);
    void *result = fails() ? MAP_FAILED : real(at, length, protection, flags, descriptor, offset);
    pthread_mutex_unlock(&lock);
    return result;
}
void *mmap(void *at, size_t length, int protection, int flags, int descriptor, off_t offset) { return mapped(at, length, protection, flags, descriptor, offset); }
void *mmap64(void *at, size_t length, int protection, int flags, int descriptor, off64_t offset) { return mapped(at, length, protection, flags, descriptor, offset); }

ssize_t read(int descriptor, void *data, size_t length) {
    REAL(read);
    char path[PATH_MAX];
    return path_of(descriptor, path) && fails() ? -1 : real(descriptor, data, length);
}
static ssize_t placed_read(int descriptor, void *data, size_t length, off_t offset) {
    REAL(pread);
    char path[PATH_MAX];
    return path_of(descriptor, path) && fails() ? -1 : real(descriptor, data, length, offset);
}
ssize_t pread(int descriptor, void *data, size_t length, off_t offset) { return placed_read(descriptor, data, length, offset); }
ssize_t pread64(int descriptor, void *data, size_t length, off64_t offset) { return placed_read(descriptor, data, length, offset); }
