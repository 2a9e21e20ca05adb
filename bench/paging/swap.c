// What a fault costs when the page is in this machine's memory all along: swap on a file in tmpfs. `swap FILE MIB TOUCHES` makes FILE, of MIB and a
// bit, puts MIB of its own memory there (MADV_PAGEOUT), and touches so many pages of it, each once, in no order. It says
//   swap file | swap loop | swap none ERRNO     where the swap is: a file in tmpfs itself is refused (it has no blocks), so behind a loop device
//   touched P50 P99 MAX STAYED WRONG     in ns; of all pages: how many were not brought out, how many had a wrong content
// The whole machine has this swap meanwhile, some seconds. One page at a time is read (vm.page-cluster 0), as one at a time is touched.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul

static char device[64];

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int make_swap_file(const char *path, uint64_t pages) {
    static uint8_t first[PAGE];
    uint32_t head[3] = {1, (uint32_t)(pages - 1), 0}; // version, last page, bad pages
    memcpy(first + 1024, head, sizeof head);
    memcpy(first + PAGE - 10, "SWAPSPACE2", 10);
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0 || ftruncate(file, (off_t)(pages * PAGE)) || pwrite(file, first, PAGE, 0) != (ssize_t)PAGE) return -1;
    return file;
}

// Gone with its last user: the swap.
static int attach_loop(int file) {
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
    if (number < 0) return -1;
    snprintf(device, sizeof device, "/dev/loop%d", number);
    int loop = open(device, O_RDWR | O_CLOEXEC);
    struct loop_config config = {.fd = (uint32_t)file, .block_size = PAGE, .info.lo_flags = LO_FLAGS_AUTOCLEAR};
    return loop < 0 || ioctl(loop, LOOP_CONFIGURE, &config) ? -1 : loop;
}

static int exchange_cluster(int value) {
    int old = -1;
    FILE *file = fopen("/proc/sys/vm/page-cluster", "r+");
    if (!file) return -1;
    if (fscanf(file, "%d", &old) != 1) old = -1;
    rewind(file);
    fprintf(file, "%d", value);
    fclose(file);
    return old;
}

int main(int count, char **arguments) {
    if (count != 4) return 64;
    uint64_t pages = strtoull(arguments[2], NULL, 10) * 256, touches = strtoull(arguments[3], NULL, 10);
    // Less than half of it gets full: from then on the kernel gives a page's place up as soon as it is read.
    int file = make_swap_file(arguments[1], pages * 5 / 2 + 2), loop = -1;
    if (file < 0 || touches > pages) return 1;
    const char *swap = arguments[1];
    if (swapon(swap, 0)) {
        int refused = errno;
        loop = attach_loop(file);
        swap = device;
        if (loop < 0 || swapon(swap, 0)) {
            printf("swap none %d\n", loop < 0 ? refused : errno);
            fflush(stdout);
            unlink(arguments[1]);
            pause();
        }
    }
    printf("swap %s\n", loop < 0 ? "file" : "loop");
    int cluster = exchange_cluster(0);

    uint8_t *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t *ns = calloc(touches, sizeof *ns);
    uint8_t *seen = calloc(pages, 1), *core = malloc(pages);
    uint64_t random = 88172645463325252u, bad = 0, here = 0;
    madvise(memory, pages * PAGE, MADV_NOHUGEPAGE);
    for (uint64_t page = 0; page < pages; page++) *(uint64_t *)(memory + page * PAGE) = page ^ 0x5555;
    memset(ns, 1, touches * sizeof *ns);
    memset(seen, 1, pages);
    // The first time a page is written, and stays beside the swap for whoever reads it soon. Read and pushed out again it has nothing to write, and goes.
    for (int i = 0; i < 10; i++) {
        madvise(memory, pages * PAGE, MADV_PAGEOUT);
        here = 0;
        mincore(memory, pages * PAGE, core);
        for (uint64_t page = 0; page < pages; page++) here += core[page] & 1;
        if (here < pages / 50) break;
        usleep(300000);
        for (uint64_t page = 0; page < pages; page++) bad += *(volatile uint64_t *)(memory + page * PAGE) != (page ^ 0x5555);
    }
    for (uint64_t done = 0; done < touches;) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        uint64_t page = random % pages;
        if (!seen[page]) continue;
        seen[page] = 0;
        uint64_t before = now_ns();
        uint64_t value = *(volatile uint64_t *)(memory + page * PAGE);
        ns[done++] = now_ns() - before;
        bad += value != (page ^ 0x5555);
    }
    munmap(memory, pages * PAGE);
    swapoff(swap);
    if (cluster >= 0) exchange_cluster(cluster);
    if (loop >= 0) close(loop);
    unlink(arguments[1]);

    qsort(ns, touches, sizeof *ns, compare);
    printf("touched %lu %lu %lu %lu %lu\n", (unsigned long)ns[touches / 2], (unsigned long)ns[touches * 99 / 100], (unsigned long)ns[touches - 1],
           (unsigned long)here, (unsigned long)bad);
    fflush(stdout);
    return bad != 0;
}
