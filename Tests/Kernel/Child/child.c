/* A process to inject into and to serve the memory of: it maps a file shared, as QEMU maps guest RAM.
 *   child FILE BYTES MODE      MODE: what the main thread does for ever, checking that nothing disturbs it
 *     poll | sleep | spin | storm (poll under a storm of signals)
 * A second thread obeys lines on stdin, each answered by one line on stdout:
 *   read PAGE          the first 8 bytes of a page
 *   write PAGE VALUE   writes them
 *   writers N FIRST COUNT   N threads write and verify pages FIRST..FIRST+COUNT for ever
 *   state              loops=… errors=… signals=… writes=…
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static uint8_t *ram;
static atomic_ulong loops, errors, signals, writes;

static void on_alarm(int signal) { (void)signal; signals++; }

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t spin(void)
{
    uint64_t a = 1, b = 2, c = 3, d = 4;
    double x = 0.5, y = 1.5;
    for (int i = 0; i < 200000; i++) {
        a = a * 6364136223846793005ULL + b;
        b ^= a >> 13;
        c += a ^ d;
        d = (d << 7) | (d >> 57);
        x = x * 1.0000001 + y;
        y = y - x * 1e-9;
    }
    uint64_t bits;
    memcpy(&bits, &x, 8);
    return a ^ b ^ c ^ d ^ bits;
}

struct span { uint64_t first, count; };

static void *writer(void *argument)
{
    struct span *span = argument;
    for (uint64_t generation = 1;; generation++) {
        for (uint64_t page = span->first; page < span->first + span->count; page++) {
            volatile uint64_t *words = (volatile uint64_t *)(ram + page * 4096);
            for (int i = 0; i < 512; i += 64)
                words[i] = page * 1000003 + generation + (uint64_t)i;
        }
        for (uint64_t page = span->first; page < span->first + span->count; page++) {
            volatile uint64_t *words = (volatile uint64_t *)(ram + page * 4096);
            for (int i = 0; i < 512; i += 64)
                if (words[i] != page * 1000003 + generation + (uint64_t)i)
                    errors++;
            writes++;
        }
    }
    return NULL;
}

static void *commands(void *argument)
{
    (void)argument;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        uint64_t a, b, c;
        if (sscanf(line, "read %" SCNu64, &a) == 1) {
            printf("%" PRIu64 "\n", *(volatile uint64_t *)(ram + a * 4096));
        } else if (sscanf(line, "write %" SCNu64 " %" SCNu64, &a, &b) == 2) {
            *(volatile uint64_t *)(ram + a * 4096) = b;
            printf("ok\n");
        } else if (sscanf(line, "writers %" SCNu64 " %" SCNu64 " %" SCNu64, &a, &b, &c) == 3) {
            for (uint64_t i = 0; i < a; i++) {
                struct span *span = malloc(sizeof *span);
                span->first = b + i * (c / a);
                span->count = c / a;
                pthread_t thread;
                pthread_create(&thread, NULL, writer, span);
            }
            printf("ok\n");
        } else {
            printf("loops=%lu errors=%lu signals=%lu writes=%lu\n", loops, errors, signals, writes);
        }
        fflush(stdout);
    }
    _exit(0);
}

int main(int count, char **arguments)
{
    if (count != 4)
        return 2;
    size_t bytes = strtoull(arguments[2], NULL, 10);
    int file = open(arguments[1], O_RDWR);
    ram = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file < 0 || ram == MAP_FAILED)
        return 3;
    const char *mode = arguments[3];
    int idle[2];
    if (pipe(idle))
        return 4;
    uint64_t expected = spin();
    pthread_t thread;
    pthread_create(&thread, NULL, commands, NULL);
    if (!strcmp(mode, "storm")) {
        struct sigaction action = { .sa_handler = on_alarm };
        sigaction(SIGALRM, &action, NULL);
        struct itimerval every = { { 0, 200 }, { 0, 200 } };
        setitimer(ITIMER_REAL, &every, NULL);
    }
    printf("%d %p\n", (int)getpid(), (void *)ram);
    fflush(stdout);
    for (;;) {
        double began = now();
        if (!strcmp(mode, "spin")) {
            if (spin() != expected)
                errors++;
        } else if (!strcmp(mode, "sleep")) {
            struct timespec t = { 0, 20000000 };
            if (nanosleep(&t, NULL) != 0 || now() - began < 0.02)
                errors++;
        } else {
            struct pollfd descriptor = { idle[0], POLLIN, 0 };
            int result = poll(&descriptor, 1, 20);
            if (result < 0 ? errno != EINTR || !strcmp(mode, "poll") : result != 0 || now() - began < 0.0199)
                errors++;
        }
        loops++;
    }
}
