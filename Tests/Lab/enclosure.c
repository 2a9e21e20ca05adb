// One enclosure: a command in network, mount, PID, IPC and UTS namespaces of its own, with private temporary
// directories. It is used twice: for the lab as a whole (Tests/Lab/enter) and for each host inside the lab.
//
//   enclosure [--hostname NAME] [--shm BYTES] [--keep DIRECTORY]... [--overlay DIRECTORY]... -- COMMAND [ARGUMENT]...
//
// Two processes of ours remain: the *keeper*, whose PID the caller knows, and the enclosure's *init* (PID 1 within).
// Why nothing is left behind, whatever dies first:
//   - init asks for SIGKILL when the keeper dies (PR_SET_PDEATHSIG; the keeper has one thread, so "the parent thread
//     died" means the keeper died), and the kernel kills every process of a PID namespace with its init;
//   - mounts and network devices live in namespaces that nothing outside refers to, so they go with the last process;
//   - everything writable that tests use (/run, /tmp, /dev/shm) is a tmpfs within those mounts.
// SIGTERM and SIGHUP to the keeper reach the command, which may end in its own way. The terminal's SIGINT and SIGQUIT
// reach the command directly, as it is in the terminal's process group; keeper and init outlast them to report its end.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if.h>
#include <net/route.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_DIRECTORIES 16

static const char *const private_directories[] = { "/run", "/tmp", "/dev/shm" };

static struct {
    const char *hostname;
    const char *shm_bytes;
    const char *keep[MAX_DIRECTORIES];
    const char *overlay[MAX_DIRECTORIES];
    int kept, overlays;
    char **command;
} options;

static volatile sig_atomic_t forward_to; // the PID that SIGTERM and SIGHUP are passed on to

static void fail(const char *format, ...) {
    int cause = errno;
    va_list arguments;
    fputs("enclosure: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, ": %s\n", strerror(cause));
    exit(125);
}

static void usage(void) {
    fputs("usage: enclosure [--hostname NAME] [--shm BYTES] [--keep DIRECTORY]... [--overlay DIRECTORY]... "
          "-- COMMAND [ARGUMENT]...\n", stderr);
    exit(125);
}

static void pass_on(int number) {
    int saved = errno;
    if (forward_to > 0) kill(forward_to, number);
    errno = saved;
}

static void handle_signals(void) {
    struct sigaction on = { .sa_handler = pass_on, .sa_flags = SA_RESTART };
    struct sigaction off = { .sa_handler = SIG_IGN };
    sigaction(SIGTERM, &on, NULL);
    sigaction(SIGHUP, &on, NULL);
    sigaction(SIGINT, &off, NULL);
    sigaction(SIGQUIT, &off, NULL);
}

static void make_directories(const char *path) {
    char partial[PATH_MAX];
    if (snprintf(partial, sizeof partial, "%s", path) >= (int)sizeof partial) { errno = ENAMETOOLONG; fail("%s", path); }
    for (char *slash = strchr(partial + 1, '/');; slash = strchr(slash + 1, '/')) {
        if (slash) *slash = 0;
        if (mkdir(partial, 0755) && errno != EEXIST) fail("cannot make %s", partial);
        if (!slash) return;
        *slash = '/';
    }
}

static int is_below(const char *path, const char *directory) {
    size_t length = strlen(directory);
    return !strncmp(path, directory, length) && path[length] == '/';
}

// A private tmpfs hides what lies below it; a directory that must be kept (the repository may lie in /tmp) is opened
// before and bound again after. It has to be opened in the new mount namespace, or binding it is refused.
static void mount_private_directories(void) {
    int handles[MAX_DIRECTORIES];
    for (int i = 0; i < options.kept; i++) {
        handles[i] = open(options.keep[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (handles[i] < 0) fail("cannot open %s", options.keep[i]);
    }
    for (size_t d = 0; d < sizeof private_directories / sizeof *private_directories; d++) {
        const char *directory = private_directories[d];
        int shm = !strcmp(directory, "/dev/shm");
        char data[96] = "mode=0755";
        if (strcmp(directory, "/run")) strcpy(data, "mode=1777");
        if (shm && options.shm_bytes) snprintf(data + strlen(data), sizeof data - strlen(data), ",size=%s", options.shm_bytes);
        if (mount("tmpfs", directory, "tmpfs", MS_NOSUID | MS_NODEV, data)) fail("cannot mount a tmpfs on %s", directory);
        for (int i = 0; i < options.kept; i++) {
            if (!is_below(options.keep[i], directory)) continue;
            char source[64];
            snprintf(source, sizeof source, "/proc/self/fd/%d", handles[i]);
            make_directories(options.keep[i]);
            if (mount(source, options.keep[i], NULL, MS_BIND | MS_REC, NULL)) fail("cannot bind %s", options.keep[i]);
        }
    }
    for (int i = 0; i < options.kept; i++) close(handles[i]);
}

// Writes below these directories land in memory, so that a host can have its own accounts and installed agents.
static void mount_overlays(void) {
    if (!options.overlays) return;
    if (mkdir("/run/overlay", 0700)) fail("cannot make /run/overlay");
    for (int i = 0; i < options.overlays; i++) {
        char upper[64], work[64], data[PATH_MAX + 160];
        snprintf(upper, sizeof upper, "/run/overlay/%d.upper", i);
        snprintf(work, sizeof work, "/run/overlay/%d.work", i);
        // The upper directory's own attributes become those of the merged one.
        struct stat lower;
        if (stat(options.overlay[i], &lower)) fail("cannot look at %s", options.overlay[i]);
        if (mkdir(upper, 0700) || chmod(upper, lower.st_mode & 07777) || mkdir(work, 0700)) fail("cannot make %s", upper);
        snprintf(data, sizeof data, "lowerdir=%s,upperdir=%s,workdir=%s", options.overlay[i], upper, work);
        if (mount("overlay", options.overlay[i], "overlay", 0, data)) fail("cannot mount an overlay on %s", options.overlay[i]);
    }
}

static void raise_loopback(void) {
    struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
    int handle = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (handle < 0 || ioctl(handle, SIOCSIFFLAGS, &request)) fail("cannot raise the loopback device");
    close(handle);
}

static void furnish(void) {
    char before[PATH_MAX];
    if (!getcwd(before, sizeof before)) strcpy(before, "/");
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL)) fail("cannot make the mounts private");
    mount_private_directories();
    mount_overlays();
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL)) fail("cannot mount /proc");
    // sysfs shows the network devices of the namespace that mounts it.
    if (mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL)) fail("cannot mount /sys");
    raise_loopback();
    if (options.hostname && sethostname(options.hostname, strlen(options.hostname))) fail("cannot set the host name");
    // The directory we stand in may now be hidden by a tmpfs.
    if (chdir(before) && chdir("/")) fail("cannot change to /");
}

static int exit_code(int status) {
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int wait_for(pid_t wanted) {
    for (;;) {
        int status;
        pid_t ended = waitpid(-1, &status, 0); // also reaps orphans: that is init's duty
        if (ended == wanted) return exit_code(status);
        if (ended < 0 && errno != EINTR) fail("cannot wait");
    }
}

// A caller may block or ignore signals; the command starts with none of that.
static void reset_signals(void) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int number = 1; number < NSIG; number++) signal(number, SIG_DFL);
}

static int run_init(int keeper_alive) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL)) fail("cannot ask for the signal of the keeper's death");
    struct pollfd keeper = { .fd = keeper_alive, .events = POLLIN };
    if (poll(&keeper, 1, 0) > 0) return 125; // it died before we asked
    furnish();
    pid_t command = fork();
    if (command < 0) fail("cannot fork");
    if (!command) {
        reset_signals();
        execvp(options.command[0], options.command);
        fprintf(stderr, "enclosure: cannot run %s: %s\n", options.command[0], strerror(errno));
        _exit(errno == ENOENT ? 127 : 126);
    }
    forward_to = command;
    return wait_for(command);
}

static void read_options(int count, char **arguments) {
    int i = 1;
    for (; i < count && strcmp(arguments[i], "--"); i++) {
        if (i + 1 >= count) usage();
        const char *name = arguments[i], *value = arguments[++i];
        if (!strcmp(name, "--hostname")) options.hostname = value;
        else if (!strcmp(name, "--shm")) options.shm_bytes = value;
        else if (!strcmp(name, "--keep") && options.kept < MAX_DIRECTORIES) options.keep[options.kept++] = value;
        else if (!strcmp(name, "--overlay") && options.overlays < MAX_DIRECTORIES) options.overlay[options.overlays++] = value;
        else usage();
        if (options.shm_bytes && strspn(options.shm_bytes, "0123456789") != strlen(options.shm_bytes)) usage();
    }
    if (i + 1 >= count) usage();
    options.command = arguments + i + 1;
}

int main(int count, char **arguments) {
    read_options(count, arguments);
    int alive[2];
    if (pipe2(alive, O_CLOEXEC)) fail("cannot make a pipe");
    handle_signals();
    if (unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS))
        fail("cannot make namespaces (the lab needs root)");
    pid_t init = fork();
    if (init < 0) fail("cannot fork");
    if (!init) {
        close(alive[1]);
        exit(run_init(alive[0]));
    }
    forward_to = init;
    close(alive[0]);
    return wait_for(init);
}
