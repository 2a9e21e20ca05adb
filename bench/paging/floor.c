/* The floor of the paging benchmark: what a fault costs when one plain thread serves it and nothing else is done.
 *   floor store PAGES                            prints "port N"; answers each 8-byte page number with 4096 bytes, of one connection after another
 *   floor serial PID UFFD ADDRESS PAGES PORT     one fault at a time: read it, ask, wait for the page, UFFDIO_COPY
 *   floor many PID UFFD ADDRESS PAGES PORT       as many at once as there are: asks for each when it is read, copies each when it comes
 *   floor zero PID UFFD ADDRESS PAGES            UFFDIO_ZEROPAGE for each fault
 * The last three take the userfaultfd UFFD of process PID, register it for ADDRESS .. and print "paging". No TLS, no error recovery.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096
#define AT_ONCE 64

static void need(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static void store(long pages)
{
    char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(memory != MAP_FAILED, "mmap");
    for (long i = 0; i < pages; i++)
        *(uint64_t *)(memory + i * PAGE) = i + 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    need(!bind(listener, (void *)&address, length) && !listen(listener, 1) && !getsockname(listener, (void *)&address, &length), "listen");
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    while (1) {
        int connection = accept(listener, NULL, NULL);
        need(connection >= 0, "accept");
        setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        uint64_t asked[AT_ONCE];
        size_t have = 0;
        ssize_t got;
        while ((got = recv(connection, (char *)asked + have, sizeof asked - have, 0)) > 0) {
            have += got;
            size_t whole = have / 8;
            for (size_t i = 0; i < whole; i++) {
                need(asked[i] < (uint64_t)pages, "page");
                need(send(connection, memory + asked[i] * PAGE, PAGE, i + 1 < whole ? MSG_MORE : 0) == PAGE, "send");
            }
            memmove(asked, (char *)asked + whole * 8, have - whole * 8);
            have -= whole * 8;
        }
        close(connection);
    }
}

static uint64_t base;

static void copy(int uffd, uint64_t number, void *content)
{
    struct uffdio_copy copy = {.dst = base + number * PAGE, .src = (uint64_t)content, .len = PAGE};
    need(!ioctl(uffd, UFFDIO_COPY, &copy), "UFFDIO_COPY");
}

static void serial(int uffd, int connection)
{
    static char page[PAGE] __attribute__((aligned(PAGE)));
    struct uffd_msg message;
    while (read(uffd, &message, sizeof message) == sizeof message) {
        uint64_t number = (message.arg.pagefault.address - base) / PAGE;
        need(send(connection, &number, 8, 0) == 8, "send");
        need(recv(connection, page, PAGE, MSG_WAITALL) == PAGE, "recv");
        copy(uffd, number, page);
    }
}

static void many(int uffd, int connection)
{
    static char content[AT_ONCE * PAGE] __attribute__((aligned(PAGE)));
    uint64_t asked[AT_ONCE * 2], next = 0, end = 0;
    size_t have = 0;
    struct pollfd wait[2] = {{uffd, POLLIN, 0}, {connection, POLLIN, 0}};
    while (poll(wait, 2, -1) > 0) {
        if (wait[0].revents) {
            struct uffd_msg messages[AT_ONCE];
            uint64_t numbers[AT_ONCE];
            ssize_t got = read(uffd, messages, sizeof messages);
            if (got < 0 && errno != EAGAIN)
                return;
            long count = got < 0 ? 0 : got / sizeof *messages;
            for (long i = 0; i < count; i++)
                asked[end++ % (AT_ONCE * 2)] = numbers[i] = (messages[i].arg.pagefault.address - base) / PAGE;
            if (count)
                need(send(connection, numbers, count * 8, 0) == count * 8, "send");
        }
        if (wait[1].revents) {
            ssize_t got = recv(connection, content + have, sizeof content - have, MSG_DONTWAIT);
            need(got > 0, "recv");
            have += got;
            size_t at = 0;
            for (; have - at >= PAGE; at += PAGE)
                copy(uffd, asked[next++ % (AT_ONCE * 2)], content + at);
            memmove(content, content + at, have - at);
            have -= at;
        }
    }
}

static void zero(int uffd)
{
    struct uffd_msg message;
    while (read(uffd, &message, sizeof message) == sizeof message) {
        struct uffdio_zeropage zero = {.range = {message.arg.pagefault.address & ~(PAGE - 1ull), PAGE}};
        need(!ioctl(uffd, UFFDIO_ZEROPAGE, &zero), "UFFDIO_ZEROPAGE");
    }
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "store"))
        store(atol(argv[2]));
    if (argc < 6)
        return 2;
    int process = syscall(SYS_pidfd_open, atoi(argv[2]), 0);
    int uffd = syscall(SYS_pidfd_getfd, process, atoi(argv[3]), 0);
    need(uffd >= 0, "pidfd_getfd");
    base = strtoull(argv[4], NULL, 10);
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM};
    need(!ioctl(uffd, UFFDIO_API, &api), "UFFDIO_API");
    struct uffdio_register registration = {.range = {base, strtoull(argv[5], NULL, 10) * PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    need(!ioctl(uffd, UFFDIO_REGISTER, &registration), "UFFDIO_REGISTER");
    int connection = -1, one = 1;
    if (argc == 7) {
        connection = socket(AF_INET, SOCK_STREAM, 0);
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(atoi(argv[6]))};
        need(!connect(connection, (void *)&address, sizeof address), "connect");
        setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    if (strcmp(argv[1], "many"))
        fcntl(uffd, F_SETFL, fcntl(uffd, F_GETFL) & ~O_NONBLOCK);
    printf("paging\n");
    fflush(stdout);
    if (!strcmp(argv[1], "serial"))
        serial(uffd, connection);
    else if (!strcmp(argv[1], "many"))
        many(uffd, connection);
    else
        zero(uffd);
    return 0;
}
