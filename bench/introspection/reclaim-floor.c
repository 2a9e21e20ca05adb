/* The floor of the reclaim benchmark: what the kernel's own calls cost to give a guest's memory back safely, and nothing else.
 *   reclaim-floor MIB PIECE_MIB
 * For each line on stdin: fills that much tmpfs memory through a mapping, then write-protects it, punches the hole and lifts the
 * protection, piece by piece; prints "freed PROTECT PUNCH UNPROTECT", each in microseconds for all of it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096

static void need(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

int main(int count, char **values)
{
    need(count == 3, "arguments");
    size_t bytes = (size_t)atol(values[1]) << 20, piece = (size_t)atol(values[2]) << 20;
    char name[] = "/dev/shm/reclaim-floor-XXXXXX", line[16];
    int file = mkostemp(name, O_CLOEXEC);
    need(file >= 0 && !unlink(name) && !ftruncate(file, bytes), "file");
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    need(memory != MAP_FAILED, "mmap");
    int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    need(uffd >= 0, "userfaultfd");
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_PAGEFAULT_FLAG_WP};
    need(!ioctl(uffd, UFFDIO_API, &api), "UFFDIO_API");
    struct uffdio_register whole = {.range = {(unsigned long)memory, bytes}, .mode = UFFDIO_REGISTER_MODE_WP};
    need(!ioctl(uffd, UFFDIO_REGISTER, &whole), "UFFDIO_REGISTER");
    while (fgets(line, sizeof line, stdin)) {
        for (size_t at = 0; at < bytes; at += PAGE)
            memory[at] = 1;
        double spent[3] = {0};
        for (size_t at = 0; at < bytes; at += piece) {
            struct uffdio_writeprotect protect = {.range = {(unsigned long)memory + at, piece}, .mode = UFFDIO_WRITEPROTECT_MODE_WP};
            double begin = now();
            need(!ioctl(uffd, UFFDIO_WRITEPROTECT, &protect), "protect");
            double protected = now();
            need(!fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, piece), "punch");
            double punched = now();
            protect.mode = 0;
            need(!ioctl(uffd, UFFDIO_WRITEPROTECT, &protect), "unprotect");
            spent[0] += protected - begin;
            spent[1] += punched - protected;
            spent[2] += now() - punched;
        }
        printf("freed %.0f %.0f %.0f\n", spent[0], spent[1], spent[2]);
        fflush(stdout);
    }
    return 0;
}
