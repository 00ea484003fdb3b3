/* Preloaded into tidegate and everything it starts: the FAULT_AT-th call that changes a file kills its process, or
   fails with FAULT_ERRNO, or writes short. Calls are counted over all processes in the shared file FAULT_COUNTER. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int *counter;
static int at, code;

__attribute__((constructor)) static void start(void) {
    const char *file = getenv("FAULT_COUNTER"), *when = getenv("FAULT_AT"), *how = getenv("FAULT_ERRNO");
    int fd = file ? open(file, O_RDWR) : -1;
    if (fd < 0) return;
    counter = mmap(NULL, sizeof *counter, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (counter == MAP_FAILED) counter = NULL;
    close(fd);
    at = when ? atoi(when) : 0;
    code = how ? atoi(how) : 0;
}

/* 1 when this call is the one to fail; does not return when it is the one to die in. */
static int faulty(void) {
    if (!counter || __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST) != at) return 0;
    if (!code) kill(getpid(), SIGKILL);
    errno = code;
    return 1;
}

static int is_file(int fd) {
    struct stat found;
    return !fstat(fd, &found) && S_ISREG(found.st_mode);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAULTY(name, declared, passed) \
    int name declared { return faulty() ? -1 : REAL(name) passed; }

ssize_t write(int fd, const void *data, size_t size) {
    if (is_file(fd) && faulty()) return -1;
    return REAL(write)(fd, data, size);
}

FAULTY(fsync, (int fd), (fd))
FAULTY(rename, (const char *from, const char *to), (from, to))
FAULTY(link, (const char *from, const char *to), (from, to))
FAULTY(linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags))
FAULTY(unlink, (const char *path), (path))
FAULTY(mkdir, (const char *path, mode_t mode), (path, mode))
FAULTY(execve, (const char *path, char *const args[], char *const env[]), (path, args, env))
