/* Wraps the command of a step in an image that holds nothing of ours, perhaps not even a shell or a libc.
 *
 * All it knows lies in one folder ($TIDEGATE_SHIM_FOLDER, or /tidegate):
 *   job   awaited, read: NUL-terminated strings, the number of words in decimal, then the words; "0" is nothing to
 *         run: the code in `done`, where it is there, else 0, becomes ours
 *   alive touched every few seconds by whoever writes `job` and `done`; an old one means that nobody will
 *   env   read where it is there: NUL-terminated NAME=VALUE, put over the environment
 *   log   appended to: what the command says on stdout and stderr, which also go to ours
 *   exit  written, whole or not at all: the command's exit code, or -N when signal N ended it
 *   done  awaited: a decimal exit code, which becomes ours
 * `shim install` copies itself to bin/shim there, which is what an init container is for.
 * What is wrong with the folder or with us, not with the command, ends with 70 and a line on stderr.
 *
 * Signals are blocked and read from a descriptor, so nothing races and, poll() apart, nothing is interrupted. A
 * slow reader of our stdout holds up the command, as it would without us, but neither a signal nor a deadline.
 *
 * gcc -static -Os -D_GNU_SOURCE -Wall -Wextra -Werror
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef GRACE_MS
#define GRACE_MS 20000 /* from the signal that asks the command to end to SIGKILL */
#endif
#ifndef DRAIN_MS
#define DRAIN_MS 2000 /* how long a daemon may hold the pipes after the command ended */
#endif
#ifndef SILENT_MS
#define SILENT_MS 120000 /* how old `alive` may be */
#endif
#ifndef PATIENCE_MS
#define PATIENCE_MS 900000 /* how long nobody may be there at all: their image may still be coming */
#endif
#define POLL_MS 20
#define BROKEN 70 /* EX_SOFTWARE */
#define PART "exit.part"

struct stream {
    int in, out;    /* in is -1 at its end, out is -1 once nobody can be written to */
    size_t at, end; /* what of data is still to be written to out */
    char data[1 << 16];
};

static struct stream streams[2];
static int folder, signals, reserved, journal = -1;
static bool journal_failed, running;
static sigset_t inherited;
static pid_t child;
static int code;                    /* of the command, as `exit` has it */
static int asked;                   /* how many signals asked us to end */
static long long kill_at, drain_at; /* milliseconds; 0 is never */

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static bool write_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        data += n, size -= (size_t)n;
    }
    return true;
}

static void __attribute__((format(printf, 1, 2))) say(const char *format, ...) {
    char line[PATH_MAX] = "tidegate: ";
    size_t start = strlen(line), size;
    va_list args;
    va_start(args, format);
    vsnprintf(line + start, sizeof line - start - 1, format, args);
    va_end(args);
    size = strlen(line);
    line[size++] = '\n';
    (void)!write_all(2, line, size); /* where it cannot be said, nobody can be told */
    if (journal >= 0) (void)!write_all(journal, line, size);
}

#define broken(...) (say(__VA_ARGS__), exit(BROKEN))

/* A step without its log is better than no step. Space may come back, so every later word is tried again. */
static void keep(const char *data, size_t size) {
    if (journal < 0 || write_all(journal, data, size) || journal_failed) return;
    journal_failed = true;
    say("the log cannot be written: %s; the command goes on", strerror(errno));
}

static void open_folder(void) {
    const char *given = getenv("TIDEGATE_SHIM_FOLDER"), *name = given && *given ? given : "/tidegate";
    if ((folder = open(name, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0) broken("%s: %s", name, strerror(errno));
}

static void take_signals(void) {
    static const int taken[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCHLD};
    sigset_t mask;
    sigemptyset(&mask);
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) sigaddset(&mask, taken[i]);
    sigprocmask(SIG_BLOCK, &mask, &inherited);
    signal(SIGCHLD, SIG_DFL); /* inherited as ignored, it would keep ends from us */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    if ((signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK)) < 0) broken("signals: %s", strerror(errno));
}

/* A closed 0, 1 or 2 would become one of our files, and then the command's. */
static void fill_standard_files(void) {
    int fd;
    while ((fd = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0 && fd <= 2) fcntl(fd, F_SETFD, 0);
    if (fd > 2) close(fd);
}

/* A whole file, which ends in NUL. */
static char *read_strings(const char *name, size_t *size) {
    struct stat s;
    char *data;
    ssize_t n = 1;
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &s)) broken("%s: %s", name, strerror(errno));
    if (!(data = malloc((size_t)s.st_size + 1))) broken("%s: %s", name, strerror(errno));
    for (*size = 0; n && *size <= (size_t)s.st_size; *size += (size_t)n)
        if ((n = read(fd, data + *size, (size_t)s.st_size + 1 - *size)) < 0) broken("%s: %s", name, strerror(errno));
    close(fd);
    if (*size != (size_t)s.st_size || !*size || data[*size - 1]) broken("%s: it is cut off, or still being written", name);
    return data;
}

/* The decimal number that a text is, with at most one newline behind it; -1 if it is something else. */
static long decimal(const char *text, long most) {
    char *end;
    if (*text < '0' || *text > '9') return -1;
    long n = strtol(text, &end, 10);
    if (*end == '\n') end++;
    return *end || n > most ? -1 : n;
}

/* The words to run; NULL is nothing to run. */
static char **words(void) {
    size_t size, found = 0;
    char *data = read_strings("job", &size), *end = data + size, *at = data + strlen(data) + 1;
    long count = decimal(data, (long)size);
    for (char *p = at; p < end; p += strlen(p) + 1) found++;
    if (count < 0) broken("job: it does not begin with a number");
    if ((size_t)count != found) broken("job: %ld words announced, %zu found", count, found);
    if (!count) return NULL;
    char **argv = calloc(found + 1, sizeof *argv);
    if (!argv) broken("job: %s", strerror(errno));
    for (size_t i = 0; i < found; i++, at += strlen(at) + 1) argv[i] = at;
    return argv;
}

static void environment(void) {
    if (faccessat(folder, "env", F_OK, 0)) return;
    size_t size;
    char *data = read_strings("env", &size);
    for (char *at = data; at < data + size; at += strlen(at) + 1)
        if (putenv(at)) broken("env: %s", strerror(errno));
}

/* The block that `exit` needs is taken while there is space: the command may fill the disk. */
static void open_files(void) {
    char blank[16] = {0};
    reserved = openat(folder, PART, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (reserved < 0 || !write_all(reserved, blank, sizeof blank)) broken("exit: %s", strerror(errno));
    journal = openat(folder, "log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (journal < 0) say("log: %s; the command goes on without", strerror(errno));
}

static void __attribute__((noreturn)) become(char **argv, pid_t parent, int out, int err) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(BROKEN);
    dup2(out, 1), dup2(err, 2);
    signal(SIGPIPE, SIG_DFL), signal(SIGXFSZ, SIG_DFL);
    sigprocmask(SIG_SETMASK, &inherited, NULL);
    execvp(argv[0], argv);
    int error = errno;
    bool missing = error == ENOENT || error == ENOTDIR;
    journal = -1; /* stderr goes there */
    if (missing && strchr(argv[0], '/') && !access(argv[0], F_OK))
        say("cannot run %s: the interpreter or loader it needs is not in this image", argv[0]);
    else
        say("cannot run %s: %s", argv[0], strerror(error));
    _exit(missing ? 127 : 126);
}

static void start(char **argv) {
    int out[2], err[2];
    pid_t self = getpid();
    if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC)) broken("pipes: %s", strerror(errno));
    if ((child = fork()) < 0) broken("cannot start a process: %s", strerror(errno));
    if (!child) become(argv, self, out[1], err[1]);
    setpgid(child, child); /* whoever of the two comes first; a signal finds the group in any case */
    close(out[1]), close(err[1]);
    fcntl(out[0], F_SETFL, O_NONBLOCK), fcntl(err[0], F_SETFL, O_NONBLOCK);
    streams[0].in = out[0], streams[0].out = 1;
    streams[1].in = err[0], streams[1].out = 2;
    running = true;
}

/* The command may have left its group; it itself is ours until it is reaped. */
static void signal_child(int number) {
    if (!running) return;
    kill(-child, number);
    if (getpgid(child) != child) kill(child, number);
}

/* The group is killed while the command is a zombie: until it is reaped nobody else can have its number. */
static void child_ended(const siginfo_t *info) {
    code = info->si_code == CLD_EXITED ? info->si_status : -info->si_status;
    kill(-child, SIGKILL);
    running = false;
    kill_at = 0;
    drain_at = now() + DRAIN_MS;
}

/* As PID 1 we also inherit what daemons leave behind. */
static void reap(void) {
    siginfo_t info = {0};
    while (!waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid) {
        if (running && info.si_pid == child) child_ended(&info);
        waitpid(info.si_pid, NULL, 0);
        info.si_pid = 0;
    }
}

/* Answers all that came; returns the last signal that asked us to end. */
static int answer_signals(void) {
    struct signalfd_siginfo s;
    int last = 0;
    while (read(signals, &s, sizeof s) == sizeof s) {
        int number = (int)s.ssi_signo;
        if (number == SIGCHLD) continue;
        signal_child(number);
        if (number != SIGTERM && number != SIGINT && number != SIGHUP) continue;
        last = number, asked++;
        if (running && !kill_at) kill_at = now() + GRACE_MS;
    }
    reap();
    return last;
}

static bool fill(struct stream *s) {
    ssize_t n = read(s->in, s->data, sizeof s->data);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (n > 0) {
        keep(s->data, (size_t)n);
        s->at = 0, s->end = s->out < 0 ? 0 : (size_t)n;
        return true;
    }
    close(s->in);
    s->in = -1;
    return false;
}

/* A pipe that poll() calls writable takes PIPE_BUF bytes without blocking. */
static void empty(struct stream *s) {
    size_t size = s->end - s->at;
    ssize_t n = write(s->out, s->data + s->at, size < PIPE_BUF ? size : PIPE_BUF);
    if (n > 0) s->at += (size_t)n;
    if (n >= 0 || errno == EINTR || errno == EAGAIN) return;
    s->out = -1;
    s->at = s->end = 0;
}

static bool going(const struct stream *s) { return s->in >= 0 || s->at < s->end; }

static int timeout(void) {
    long long at = running ? kill_at : drain_at, left = at - now();
    return !at ? -1 : left < 0 ? 0 : (int)left;
}

/* Copies until the command ended and its pipes are at their end, or the daemons that hold them had their time. */
static void follow(void) {
    while (running || ((going(&streams[0]) || going(&streams[1])) && now() < drain_at)) {
        struct pollfd polls[3] = {{signals, POLLIN, 0}, {-1, 0, 0}, {-1, 0, 0}};
        for (int i = 0; i < 2; i++) {
            struct stream *s = &streams[i];
            bool full = s->at < s->end;
            polls[i + 1].fd = full ? s->out : s->in;
            polls[i + 1].events = full ? POLLOUT : POLLIN;
        }
        poll(polls, 3, timeout());
        for (int i = 0; i < 2; i++) {
            if (!polls[i + 1].revents) continue;
            if (polls[i + 1].events == POLLOUT) empty(&streams[i]);
            else fill(&streams[i]);
        }
        answer_signals();
        if (kill_at && now() >= kill_at) signal_child(SIGKILL), kill_at = now() + GRACE_MS;
    }
    for (int i = 0; i < 2; i++) /* the log gets what a slow reader kept in a pipe; no daemon keeps us here */
        for (int times = 0; times < 16 && streams[i].in >= 0 && fill(&streams[i]); times++);
}

static void write_exit(void) {
    char text[16];
    int size = snprintf(text, sizeof text, "%d", code);
    if (pwrite(reserved, text, (size_t)size, 0) != size || ftruncate(reserved, size)) broken("exit: %s", strerror(errno));
    if (renameat(folder, PART, folder, "exit")) broken("exit: %s", strerror(errno));
    for (int i = 0; i < 2; i++)
        if (streams[i].in >= 0) close(streams[i].in);
}

/* The code in `done`, -1 while it is not there. */
static int read_done(void) {
    char text[16];
    int fd = openat(folder, "done", O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) return -1;
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n < 0) broken("done: %s", strerror(errno));
    close(fd);
    text[n] = 0;
    int found = (int)decimal(text, 255);
    if (n && found < 0) broken("done: no exit code");
    return found; /* an empty one is still being written */
}

static bool nobody_there(long long since) {
    struct stat s;
    struct timespec t;
    if (fstatat(folder, "alive", &s, 0)) return now() - since > PATIENCE_MS;
    clock_gettime(CLOCK_REALTIME, &t);
    return (t.tv_sec - s.st_mtim.tv_sec) * 1000LL > SILENT_MS;
}

/* Wait for a file; the number of a signal that ends the wait is returned, 0 when the file is there. */
static int await(const char *name, int signals_allowed) {
    long long since = now();
    int last;
    while (faccessat(folder, name, F_OK, 0)) {
        struct pollfd signalled = {signals, POLLIN, 0};
        poll(&signalled, 1, POLL_MS);
        if ((last = answer_signals()) && asked > signals_allowed) return last;
        if (nobody_there(since)) broken("%s: whoever writes it is gone", name);
    }
    return 0;
}

/* A first signal leaves the one who writes `done` its time to store what the command made; a second one does not. */
static int await_done(void) {
    int last, found;
    do {
        if ((last = await("done", 1))) return 128 + last;
    } while ((found = read_done()) < 0 && !usleep(POLL_MS * 1000));
    return found;
}

static int install(void) {
    int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (mkdirat(folder, "bin", 0755) && errno != EEXIST) broken("bin: %s", strerror(errno));
    int to = openat(folder, "bin/shim", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    ssize_t n = 1;
    if (from < 0 || to < 0) broken("bin/shim: %s", strerror(errno));
    while (n > 0) n = sendfile(to, from, NULL, 1 << 20);
    if (n < 0 || fchmod(to, 0755) || close(to)) broken("bin/shim: %s", strerror(errno));
    return 0;
}

int main(int argc, char **given) {
    int last;
    fill_standard_files();
    take_signals();
    open_folder();
    if (argc == 2 && !strcmp(given[1], "install")) return install();
    if ((last = await("job", 0))) return 128 + last;
    char **argv = words();
    environment();
    if (!argv) return faccessat(folder, "done", F_OK, 0) ? 0 : read_done();
    open_files();
    start(argv);
    follow();
    write_exit();
    return await_done();
}
