/* Plays the guest: maps a RAM file, opens userfaultfds for it (and keeps them, as QEMU does), and works on the memory with several threads.
 *   guest RAMFILE PAGES THREADS USED UFFDS
 * Prints "ready ADDRESS UFFD..."; then takes lines on stdin:
 *   run             threads write and verify random pages below USED; answers "running"
 *   stop            they stop; answers "stopped OPS ERRORS BUSERRORS"
 *   verify          verifies each page below USED in full; answers "verified PAGES ERRORS BUSERRORS"
 *   ops             answers "ops OPS ERRORS BUSERRORS"
 *   touch A B       reads pages A to B that were never written; each must be zeros; answers "touched PAGES ERRORS BUSERRORS"
 *   fill A B        writes pages A to B; answers "filled PAGES ERRORS BUSERRORS"
 *   adopt A B G     pages A to B have the content of generation G already, wherever it is; answers "adopted PAGES"
 *   write P         writes page P; answers "wrote P" when it is done
 *   read P          verifies page P in full; answers "read P ERRORS BUSERRORS"
 *   poke O V        writes the 32 bits V at byte O; answers "poked O" when it is done
 * The content of a page is a function of (page, generation); generation 0, and each 16th, is all zeros, 5 and each 16th from there on a table whose
 * rows of 64 bytes go on by constant steps, and 6 and each 16th from there on such a table with one row that is otherwise.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WORDS 512

static volatile uint64_t *ram;
static uint32_t *generation;
static long pages, used;
static int threads;
static atomic_long ops, errors, buserrors;
static atomic_int running, resting;
static __thread sigjmp_buf *on_bus;

static void bus(int signal)
{
    (void)signal;
    atomic_fetch_add(&buserrors, 1);
    if (on_bus)
        siglongjmp(*on_bus, 1);
    _exit(7);
}

static uint64_t word(long page, uint32_t gen, int i)
{
    if (gen % 16 == 0)
        return 0;
    if (gen % 16 == 5 || (gen % 16 == 6 && i / 8 != 9))
        return (uint64_t)page * 0x9E3779B97F4A7C15ull + (uint64_t)gen * 0xC2B2AE3D27D4EB4Full + (uint64_t)(i % 8) * 0x165667B19E3779F9ull
            + (uint64_t)(i / 8) * (64 + i % 8);
    uint64_t x = (uint64_t)page * 0x9E3779B97F4A7C15ull ^ (uint64_t)gen * 0xC2B2AE3D27D4EB4Full ^ (uint64_t)i * 0x165667B19E3779F9ull;
    x ^= x >> 29;
    x *= 0xBF58476D1CE4E5B9ull;
    return x ^ x >> 32;
}

static void fill(long page, uint32_t gen)
{
    volatile uint64_t *p = ram + page * WORDS;
    for (int i = 0; i < WORDS; i++)
        p[i] = word(page, gen, i);
    generation[page] = gen;
}

static int check(long page, int step, int offset)
{
    volatile uint64_t *p = ram + page * WORDS;
    for (int i = offset; i < WORDS; i += step)
        if (p[i] != word(page, generation[page], i)) {
            fprintf(stderr, "page %ld generation %u word %d: %lx, not %lx\n", page, generation[page], i, (long)p[i],
                (long)word(page, generation[page], i));
            return 1;
        }
    return 0;
}

static void guarded(void (*what)(long), long page)
{
    sigjmp_buf buffer;
    if (sigsetjmp(buffer, 1) == 0) {
        on_bus = &buffer;
        what(page);
    }
    on_bus = NULL;
}

static void check_full(long page) { atomic_fetch_add(&errors, check(page, 1, 0)); }
static void write_next(long page) { fill(page, generation[page] + 1); }

/* The kernel's own accesses to the memory fault too: pass a page through a pipe and back. */
static void through_pipe(long page, int *fds)
{
    char *p = (char *)(ram + page * WORDS);
    static __thread char copy[4096];
    if (write(fds[1], p, 4096) != 4096 || read(fds[0], copy, 4096) != 4096)
        return;
    for (int i = 0; i < WORDS; i++)
        if (((uint64_t *)copy)[i] != word(page, generation[page], i)) {
            atomic_fetch_add(&errors, 1);
            return;
        }
    if (write(fds[1], copy, 4096) != 4096 || read(fds[0], p, 4096) != 4096)
        atomic_fetch_add(&errors, 1);
}

static void *work(void *argument)
{
    long me = (long)argument;
    uint64_t x = 88172645463325252ull + me * 1234567;
    int fds[2];
    if (pipe(fds))
        exit(2);
    sigjmp_buf buffer;
    while (1) {
        if (!atomic_load(&running)) {
            atomic_fetch_add(&resting, 1);
            while (!atomic_load(&running))
                usleep(500);
            atomic_fetch_sub(&resting, 1);
        }
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        /* Each page has one thread; half of the work goes to a tenth of the pages. */
        long span = (x >> 40) % 2 ? used : used / 10;
        long page = (long)(x % (span / threads)) * threads + me;
        if (sigsetjmp(buffer, 1) == 0) {
            on_bus = &buffer;
            atomic_fetch_add(&errors, check(page, 61, (x >> 20) % 61));
            switch ((x >> 33) % 16) {
            case 0: case 1: case 2: case 3: case 4:
                fill(page, generation[page] + 1);
                break;
            case 5:
                through_pipe(page, fds);
                break;
            }
        }
        on_bus = NULL;
        atomic_fetch_add(&ops, 1);
    }
    return NULL;
}

int main(int count, char **values)
{
    if (count != 6)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    pages = atol(values[2]);
    threads = atoi(values[3]);
    used = atol(values[4]);
    int fd = open(values[1], O_RDWR | O_CLOEXEC);
    if (fd < 0 || used > pages)
        return 3;
    generation = calloc(pages, sizeof *generation);
    ram = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (ram == MAP_FAILED)
        return 4;
    int uffds[8], uffd_count = atoi(values[5]);
    for (int i = 0; i < uffd_count; i++)
        if (i == 8 || (uffds[i] = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)) < 0)
            return 5;
    struct sigaction action = {.sa_handler = bus};
    sigaction(SIGBUS, &action, NULL);
    for (long i = 0; i < threads; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, work, (void *)i);
    }
    printf("ready %lu", (unsigned long)ram);
    for (int i = 0; i < uffd_count; i++)
        printf(" %d", uffds[i]);
    printf("\n");
    char line[200];
    while (fgets(line, sizeof line, stdin)) {
        long a, b, c;
        if (!strcmp(line, "run\n")) {
            atomic_store(&running, 1);
            printf("running\n");
        } else if (!strcmp(line, "stop\n")) {
            atomic_store(&running, 0);
            while (atomic_load(&resting) != threads)
                usleep(500);
            printf("stopped %ld %ld %ld\n", atomic_load(&ops), atomic_load(&errors), atomic_load(&buserrors));
        } else if (!strcmp(line, "ops\n")) {
            printf("ops %ld %ld %ld\n", atomic_load(&ops), atomic_load(&errors), atomic_load(&buserrors));
        } else if (!strcmp(line, "verify\n")) {
            for (long p = 0; p < used; p++)
                guarded(check_full, p);
            printf("verified %ld %ld %ld\n", used, atomic_load(&errors), atomic_load(&buserrors));
        } else if (sscanf(line, "touch %ld %ld", &a, &b) == 2 && a >= 0 && b <= pages) {
            for (long p = a; p < b; p++)
                guarded(check_full, p);
            printf("touched %ld %ld %ld\n", b - a, atomic_load(&errors), atomic_load(&buserrors));
        } else if (sscanf(line, "fill %ld %ld", &a, &b) == 2 && a >= 0 && b <= pages) {
            for (long p = a; p < b; p++)
                guarded(write_next, p);
            printf("filled %ld %ld %ld\n", b - a, atomic_load(&errors), atomic_load(&buserrors));
        } else if (sscanf(line, "adopt %ld %ld %ld", &a, &b, &c) == 3 && a >= 0 && b <= pages) {
            for (long p = a; p < b; p++)
                generation[p] = c;
            printf("adopted %ld\n", b - a);
        } else if (sscanf(line, "write %ld", &a) == 1 && a >= 0 && a < pages) {
            guarded(write_next, a);
            printf("wrote %ld\n", a);
        } else if (sscanf(line, "read %ld", &a) == 1 && a >= 0 && a < pages) {
            guarded(check_full, a);
            printf("read %ld %ld %ld\n", a, atomic_load(&errors), atomic_load(&buserrors));
        } else if (sscanf(line, "poke %ld %ld", &a, &b) == 2 && a >= 0 && a % 4 == 0 && a < pages * 4096) {
            ((volatile uint32_t *)ram)[a / 4] = (uint32_t)b;
            printf("poked %ld\n", a);
        } else {
            return 6;
        }
    }
    return 0;
}
