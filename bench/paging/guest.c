/* Plays the guest for the paging benchmark: maps a RAM file, opens a userfaultfd for it and keeps it, as QEMU does, and touches pages.
 *   guest RAMFILE PAGES USERFAULTFDS
 * Prints "ready ADDRESS UFFD..."; then takes lines on stdin:
 *   touch THREADS ordered|random|skewed|swept remote|fresh FIRST COUNT
 * Each page of FIRST .. FIRST + COUNT - 1 is read once, by one thread: in order, each thread its own part, or shuffled. Its first word
 * must be its number + 1 (remote) or 0 (fresh). With "skewed" instead of an order, COUNT touches go to all pages, half of them to the
 * hottest tenth and each fourth a write. "swept" is that within the first quarter of the memory, while each fourth touch goes on with a
 * sweep that reads the other three quarters in order, again and again.
 *   beside
 * One thread walks through the first three quarters in order; until it is through, another touches pages of the last quarter, remote ones,
 * shuffled, each once. What is answered is about the latter.
 * Both answer "touched NANOSECONDS P50 P90 P99 P999 MAX ERRORS COUNT", latencies in nanoseconds.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t *ram;
static long pages, count, most;
static uint32_t *order, *nanoseconds;
static int threads, fresh, skewed, swept;
static long errors, hand;
static int walked;
static pthread_barrier_t begin;

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void *touch(void *argument)
{
    long me = (long)argument, wrong = 0;
    uint64_t x = 0x9E3779B97F4A7C15ull * (me + 1);
    pthread_barrier_wait(&begin);
    for (long i = count * me / threads; i < count * (me + 1) / threads; i++) {
        if (swept && i % 4 == 3) {
            /* One sweep, whichever thread goes on with it. */
            order[i] = pages / 4 + __atomic_fetch_add(&hand, 1, __ATOMIC_RELAXED) % (pages - pages / 4);
        } else if (skewed) {
            long among = swept ? pages / 4 : pages;
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            double u = (x >> 11) / (double)(1ull << 53);
            /* The fourth power: self-similar; spread over the memory, so that hot pages are not neighbours. */
            order[i] = (uint64_t)(u * u * u * u * among) * 7919 % among;
        }
        uint64_t start = now();
        uint64_t word = ram[(uint64_t)order[i] * 512];
        if (skewed && i % 4 == 0)
            ram[(uint64_t)order[i] * 512 + 1] = i;
        nanoseconds[i] = (uint32_t)(now() - start);
        wrong += word != (fresh ? 0 : (uint64_t)order[i] + 1);
    }
    __atomic_fetch_add(&errors, wrong, __ATOMIC_RELAXED);
    return NULL;
}

/* The two threads of "beside": the walk, and the touches beside it. */
static void *walk(void *argument)
{
    long wrong = 0;
    pthread_barrier_wait(&begin);
    for (long i = 0; i < pages - pages / 4; i++)
        wrong += ram[i * 512] != (uint64_t)i + 1;
    __atomic_store_n(&walked, 1, __ATOMIC_RELEASE);
    __atomic_fetch_add(&errors, wrong, __ATOMIC_RELAXED);
    return argument;
}

static void *touch_beside(void *argument)
{
    long wrong = 0, done = 0;
    pthread_barrier_wait(&begin);
    do {
        uint64_t start = now();
        wrong += ram[(uint64_t)order[done] * 512] != (uint64_t)order[done] + 1;
        nanoseconds[done++] = (uint32_t)(now() - start);
    } while (done < count && !__atomic_load_n(&walked, __ATOMIC_ACQUIRE));
    count = done;
    __atomic_fetch_add(&errors, wrong, __ATOMIC_RELAXED);
    return argument;
}

static void shuffle(void)
{
    uint64_t x = 88172645463325252ull;
    for (long i = count - 1; i > 0; i--) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        long j = x % (i + 1);
        uint32_t swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    pages = atol(argv[2]);
    int fd = open(argv[1], O_RDWR | O_CLOEXEC);
    ram = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    most = pages * 20;
    order = malloc(most * sizeof *order);
    nanoseconds = malloc(most * sizeof *nanoseconds);
    if (fd < 0 || ram == MAP_FAILED || !order || !nanoseconds)
        return 3;
    printf("ready %lu", (unsigned long)ram);
    for (int i = atoi(argv[3]); i > 0; i--) {
        int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
        if (uffd < 0)
            return 3;
        printf(" %d", uffd);
    }
    printf("\n");
    char line[200], how[20], what[20];
    while (fgets(line, sizeof line, stdin)) {
        long first;
        int beside = !strncmp(line, "beside", 6);
        if (beside) {
            threads = 2;
            first = pages - pages / 4;
            count = pages / 4;
            strcpy(how, "random");
            walked = 0;
        } else if (sscanf(line, "touch %d %19s %19s %ld %ld", &threads, how, what, &first, &count) != 5 || threads < 1 || threads > 64
            || first < 0 || count < 1 || count > most || (first + count > pages && strcmp(how, "skewed") && strcmp(how, "swept")))
            return 4;
        fresh = !beside && !strcmp(what, "fresh");
        swept = !strcmp(how, "swept");
        skewed = swept || !strcmp(how, "skewed");
        hand = 0;
        for (long i = 0; i < count; i++)
            order[i] = first + i;
        if (!strcmp(how, "random"))
            shuffle();
        memset(nanoseconds, 0, count * sizeof *nanoseconds);
        errors = 0;
        pthread_barrier_init(&begin, NULL, threads + 1);
        pthread_t ids[64];
        for (long i = 0; i < threads; i++)
            pthread_create(&ids[i], NULL, !beside ? touch : i ? touch_beside : walk, (void *)i);
        uint64_t start = now();
        pthread_barrier_wait(&begin);
        for (long i = 0; i < threads; i++)
            pthread_join(ids[i], NULL);
        uint64_t end = now();
        qsort(nanoseconds, count, sizeof *nanoseconds, by_value);
        printf("touched %lu %u %u %u %u %u %ld %ld\n", (unsigned long)(end - start), nanoseconds[count / 2], nanoseconds[count * 9 / 10],
            nanoseconds[count * 99 / 100], nanoseconds[count * 999 / 1000], nanoseconds[count - 1], errors, count);
    }
    return 0;
}
