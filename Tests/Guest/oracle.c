// The oracle: the guest's workload, and the judge of every migration test. It holds memory whose every 8-byte word is a
// function of (page, generation), verifies and rewrites it for ever, gives parts back and takes others, and tells over
// the serial port what it finds. Memory that a migration lost, mixed up, or took from an older round can't satisfy it.
//
// A command is one line, `[#ID ]NAME [ARGUMENT]... [KEY=VALUE]...`; each is answered by one line, `[#ID ]ok KEY=VALUE...`
// or `[#ID ]error TEXT`. A repeated ID is not carried out again: its answer is repeated, so that a client whose
// connection broke (the guest moved) may ask again; ^U discards a line begun. Lines that start with `! ` come unasked: each page's first mismatch.
//
//   fill MIB          takes memory and fills it               run [rate=MIB_PER_S] [churn=MIB_PER_S] [threads=N] [pace=MIB_PER_S]
//   fresh MIB         the same, but it must read as zero              verifies for ever, no faster than its pace if it has one;
//   free MIB [scatter]  gives memory back                             rewrites and gives back and takes again at these rates
//   verify            one pass over every page, now           pause   ends `run`
//   use MIB [rounds=N] [rest=MS]  so often: takes memory piece by piece, writes and reads it, gives all back; rests; reads what is held
//   touch PAGES       reads a word of so many pages held, each page once and in no order, others than the last time as far as there
//                     are some: how long each touch took, in ns
//   holes MIB         takes memory for good and gives every other page back: free memory in single pages
//   stat              what was found so far                   meminfo from /proc/meminfo, in kB
//   sh COMMAND        runs a shell command                    poweroff, reboot
//   kexec KERNEL INITRD    starts another kernel, with this one's command line, without the firmware
//
// Locks: `list_lock` guards the array of chunks: workers and `verify` hold it for reading while they work on a chunk,
// so a chunk found in the array stays. A chunk's own lock guards its memory and generations. Order: list, chunk.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define WORDS (PAGE / 8)
#define CHUNK_PAGES 256u
#define CHUNK_BYTES (CHUNK_PAGES * PAGE)
#define MAX_CHUNKS (1u << 20)
#define MAX_THREADS 8
#define MAX_LINE 4096
#define MAX_REPORTS 100
#define USE_PIECE 4096          // pages that `use` writes before it reads them
#define TOUCH_WAITED_NS 10000  // a touch that takes as long has waited for its page
#define RESERVE_KB (24 * 1024) // left to the guest's kernel by fill and fresh

// Apart from what every command walks through, and given back with the memory that it is about: whoever takes or frees memory
// must touch no page of this program for each MiB that it holds besides, or a split VM fetches those.
struct record {
    uint32_t generation[CHUNK_PAGES];
    bool reported[CHUNK_PAGES];
};

struct chunk {
    uint64_t *memory;
    struct record *record;
    uint64_t first_page; // a name for the chunk's first page, never used again
    uint64_t verified;   // passes that verified this chunk; a new chunk starts at the least of the others
    uint64_t verified_at; // milliseconds on the guest's clock
    pthread_mutex_t lock;
};

static pthread_rwlock_t list_lock;
static struct chunk *chunks; // room for MAX_CHUNKS is reserved; only the commands' thread goes beyond the count
static size_t chunk_count;
static uint64_t next_page;

static pthread_mutex_t output_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_uint_fast64_t pages_verified, pages_rewritten, pages_churned, errors, reports, cursor;

static volatile uint64_t list_seen;

static pthread_t workers[MAX_THREADS];
static int worker_count;
static atomic_bool stopping;
static double rewrite_rate, churn_rate; // MiB/s of all workers; written only while none runs
static useconds_t chunk_rest;            // of each worker after a chunk, likewise: an emulated guest that never rests has a processor of its host to itself

static uint64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t mix(uint64_t x) { // splitmix64's finalizer
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

// No two steps between words are alike: what a guest's pages hold is no arithmetic series either, and whoever sends one in short gains nothing here.
static uint64_t word_of(uint64_t seed, unsigned i) {
    uint64_t x = seed + i * 0x9e3779b97f4a7c15u;
    return x ^ (x >> 29);
}

// Words 0 and 1 say in clear which page and generation this is, so that a report can tell what was found instead.
static void fill_page(uint64_t *words, uint64_t page, uint32_t generation) {
    uint64_t seed = mix(page ^ mix(generation));
    words[0] = page;
    words[1] = generation;
    for (unsigned i = 2; i < WORDS; i++) words[i] = word_of(seed, i);
}

static int first_mismatch(const uint64_t *words, uint64_t page, uint32_t generation) {
    uint64_t seed = mix(page ^ mix(generation));
    if (words[0] != page) return 0;
    if (words[1] != generation) return 1;
    for (unsigned i = 2; i < WORDS; i++)
        if (words[i] != word_of(seed, i)) return (int)i;
    return -1;
}

static void say(const char *line) {
    pthread_mutex_lock(&output_lock);
    size_t length = strlen(line), done = 0;
    while (done < length) {
        ssize_t n = write(STDOUT_FILENO, line + done, length - done);
        if (n < 0 && errno != EINTR && errno != EAGAIN) break;
        if (n > 0) done += (size_t)n;
    }
    pthread_mutex_unlock(&output_lock);
}

static void report(struct chunk *chunk, unsigned index, int word, const char *what) {
    atomic_fetch_add(&errors, 1);
    if (chunk->record->reported[index]) return;
    chunk->record->reported[index] = true;
    if (atomic_fetch_add(&reports, 1) >= MAX_REPORTS) return;
    const uint64_t *words = chunk->memory + (size_t)index * WORDS;
    char line[256];
    snprintf(line, sizeof line, "! %s page=%" PRIu64 " generation=%" PRIu32 " word=%d found=%016" PRIx64
             " says_page=%" PRIu64 " says_generation=%" PRIu64 " address=%p\n", what, chunk->first_page + index,
             chunk->record->generation[index], word, words[word], words[0], words[1], (const void *)words);
    say(line);
}

// The chunk's lock is held by the caller, here and in the next two.
static uint64_t verify_chunk(struct chunk *chunk) {
    uint64_t found = 0;
    for (unsigned i = 0; i < CHUNK_PAGES; i++) {
        uint64_t *words = chunk->memory + (size_t)i * WORDS;
        int word = first_mismatch(words, chunk->first_page + i, chunk->record->generation[i]);
        if (word >= 0) { found++; report(chunk, i, word, "mismatch"); }
    }
    chunk->verified++;
    chunk->verified_at = now_ms();
    atomic_fetch_add(&pages_verified, CHUNK_PAGES);
    return found;
}

static void rewrite_chunk(struct chunk *chunk) {
    for (unsigned i = 0; i < CHUNK_PAGES; i++)
        fill_page(chunk->memory + (size_t)i * WORDS, chunk->first_page + i, ++chunk->record->generation[i]);
    atomic_fetch_add(&pages_rewritten, CHUNK_PAGES);
}

// New memory must read as zero. Its last word is written first, or the kernel would show its one shared zero page.
static uint64_t check_zero(struct chunk *chunk) {
    uint64_t found = 0;
    for (unsigned i = 0; i < CHUNK_PAGES; i++) {
        volatile uint64_t *words = chunk->memory + (size_t)i * WORDS;
        words[WORDS - 1] = 1;
        for (unsigned w = 0; w < WORDS - 1; w++)
            if (words[w]) { found++; report(chunk, i, (int)w, "not_zero"); break; }
    }
    return found;
}

static void *take(size_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

static uint64_t least_verified(void) { // list_lock is held
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < chunk_count; i++) if (chunks[i].verified < least) least = chunks[i].verified;
    return chunk_count ? least : 0;
}

static bool make_chunk(struct chunk *chunk, void *memory) {
    chunk->memory = memory;
    chunk->record = take(sizeof *chunk->record);
    chunk->first_page = __atomic_fetch_add(&next_page, CHUNK_PAGES, __ATOMIC_RELAXED);
    pthread_mutex_init(&chunk->lock, NULL);
    return chunk->record;
}

static void *work(void *ignored) {
    (void)ignored;
    double rewrite_budget = 0, churn_budget = 0; // MiB
    uint64_t last = now_ms();
    while (!atomic_load(&stopping)) {
        uint64_t now = now_ms();
        double seconds = (double)(now - last) / 1000;
        last = now;
        // A pause (the guest stood still, a slow page) must not be made up for by a burst.
        if (seconds > 0.1) seconds = 0.1;
        rewrite_budget += seconds * rewrite_rate / worker_count;
        churn_budget += seconds * churn_rate / worker_count;
        pthread_rwlock_rdlock(&list_lock);
        struct chunk *chunk = chunk_count ? &chunks[atomic_fetch_add(&cursor, 1) % chunk_count] : NULL;
        if (chunk && pthread_mutex_trylock(&chunk->lock) == 0) {
            verify_chunk(chunk);
            if (churn_budget >= 1) {
                churn_budget -= 1;
                void *old = chunk->memory, *fresh = take(CHUNK_BYTES);
                if (fresh) {
                    munmap(old, CHUNK_BYTES);
                    chunk->memory = fresh;
                    check_zero(chunk);
                    rewrite_chunk(chunk);
                    atomic_fetch_add(&pages_churned, CHUNK_PAGES);
                }
            } else if (rewrite_budget >= 1) {
                rewrite_budget -= 1;
                rewrite_chunk(chunk);
            }
            pthread_mutex_unlock(&chunk->lock);
        }
        pthread_rwlock_unlock(&list_lock);
        useconds_t rest = chunk ? chunk_rest : 1000;
        if (rest) usleep(rest);
    }
    return NULL;
}

static void stop_workers(void) {
    atomic_store(&stopping, true);
    for (int i = 0; i < worker_count; i++) pthread_join(workers[i], NULL);
    worker_count = 0;
    atomic_store(&stopping, false);
}

// ---- Commands: each writes its answer, without the identifier and the line's end.

static char answer[MAX_LINE + 64];
static void __attribute__((format(printf, 1, 2))) reply(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(answer, sizeof answer, format, arguments);
    va_end(arguments);
}

static const char *option(const char *arguments, const char *name) {
    size_t length = strlen(name);
    for (const char *at = arguments; (at = strstr(at, name)); at += length)
        if ((at == arguments || at[-1] == ' ') && at[length] == '=') return at + length + 1;
    return NULL;
}

static uint64_t meminfo(const char *field) {
    FILE *file = fopen("/proc/meminfo", "re");
    char line[128];
    uint64_t value = 0;
    size_t length = strlen(field);
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, field, length) && line[length] == ':') value = strtoull(line + length + 1, NULL, 10);
    if (file) fclose(file);
    return value;
}

static bool parse_mib(const char *arguments, size_t *mib) {
    char *end;
    errno = 0;
    unsigned long value = strtoul(arguments, &end, 10);
    if (errno || end == arguments || (*end && *end != ' ') || !value || value > (1ul << 30)) {
        reply("error expected a number of MiB, got '%.40s'", arguments);
        return false;
    }
    *mib = value;
    return true;
}

static void command_take(const char *arguments, bool must_be_zero) {
    size_t mib;
    if (!parse_mib(arguments, &mib)) return;
    uint64_t available = meminfo("MemAvailable");
    if (mib * 1024 + RESERVE_KB > available) {
        reply("error the guest has %" PRIu64 " kB available, too little for %zu MiB", available, mib);
        return;
    }
    uint64_t started = now_ms(), before = atomic_load(&errors);
    if (chunk_count + mib > MAX_CHUNKS) { reply("error this program keeps at most %u MiB", MAX_CHUNKS); return; }
    uint8_t *memory = take(mib * CHUNK_BYTES);
    if (!memory) { reply("error out of address space"); return; }
    // Looked at before the new memory pushes the list out of a small main host; who verifies meanwhile is ahead of it.
    pthread_rwlock_rdlock(&list_lock);
    uint64_t least = least_verified();
    pthread_rwlock_unlock(&list_lock);
    for (size_t i = 0; i < mib; i++) {
        struct chunk *chunk = &chunks[chunk_count + i];
        if (!make_chunk(chunk, memory + i * CHUNK_BYTES)) { reply("error out of memory"); return; }
        if (must_be_zero) check_zero(chunk);
        rewrite_chunk(chunk);
        chunk->verified_at = now_ms();
        chunk->verified = least;
    }
    pthread_rwlock_wrlock(&list_lock);
    chunk_count += mib;
    pthread_rwlock_unlock(&list_lock);
    reply("ok pages=%zu errors=%" PRIu64 " ms=%" PRIu64, mib * CHUNK_PAGES, atomic_load(&errors) - before, now_ms() - started);
}

static uint64_t number_option(const char *arguments, const char *name, uint64_t otherwise) {
    const char *text = option(arguments, name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

// Of pages held, the first word: only when no worker rewrites them.
static uint64_t read_held(uint64_t *found) {
    uint64_t pages = 0;
    pthread_rwlock_rdlock(&list_lock);
    for (size_t c = 0; c < chunk_count; c++, pages += CHUNK_PAGES)
        for (unsigned i = 0; i < CHUNK_PAGES; i++) *found += *(volatile uint64_t *)(chunks[c].memory + (size_t)i * WORDS) != chunks[c].first_page + i;
    pthread_rwlock_unlock(&list_lock);
    return pages;
}

// At a pace that is the memory's rather than the processor's: of each page the ends are written, and read when its piece has been written.
// Rests are not in the time that it tells.
static void command_use(const char *arguments) {
    size_t mib;
    if (!parse_mib(arguments, &mib)) return;
    uint64_t rounds = number_option(arguments, "rounds", 1), rest = number_option(arguments, "rest", 0);
    if (rounds < 1 || rounds > 10000 || rest > 60000) { reply("error rounds are 1 to 10000, a rest is at most 60000 ms"); return; }
    if (mib * 1024 + RESERVE_KB > meminfo("MemAvailable")) { reply("error the guest has too little memory for %zu MiB", mib); return; }
    uint64_t found = 0, ms = 0, pages = mib * CHUNK_PAGES, touched = 0;
    for (uint64_t round = 0; round < rounds; round++) {
        uint64_t started = now_ms(), first = next_page;
        volatile uint64_t *memory = take(mib * CHUNK_BYTES);
        if (!memory) { reply("error out of address space"); return; }
        for (uint64_t at = 0; at < pages; at += USE_PIECE) {
            uint64_t end = pages - at < USE_PIECE ? pages : at + USE_PIECE;
            for (uint64_t i = at; i < end; i++) {
                memory[i * WORDS] = first + i;
                memory[i * WORDS + WORDS - 1] = ~(first + i);
            }
            for (uint64_t i = at; i < end; i++) found += memory[i * WORDS] != first + i || memory[i * WORDS + WORDS - 1] != ~(first + i);
        }
        munmap((void *)memory, mib * CHUNK_BYTES);
        next_page += pages;
        ms += now_ms() - started;
        usleep((useconds_t)rest * 1000);
        started = now_ms();
        touched += pages * 2 + read_held(&found);
        ms += now_ms() - started;
    }
    atomic_fetch_add(&errors, found);
    reply("ok pages=%" PRIu64 " errors=%" PRIu64 " ms=%" PRIu64, touched, found, ms);
}

static int compare_ticks(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

// By the processor's own counter: the kernel's clock may be a device of the machine, which takes longer to read than a page does.
static void command_touch(const char *arguments) {
    static uint64_t picked; // by all touches so far: each goes on where the last one ended
    uint64_t count = strtoull(arguments, NULL, 10), held = chunk_count * CHUNK_PAGES;
    if (!count || count > held / 2) { reply("error touches are 1 to half of the %" PRIu64 " pages held", held); return; }
    uint64_t *ticks = calloc(count, sizeof *ticks);
    uint8_t *seen = calloc(held, 1);
    if (!ticks || !seen) { reply("error out of memory"); return; }
    memset(ticks, 1, count * sizeof *ticks);
    memset(seen, 1, held);
    pthread_rwlock_rdlock(&list_lock);
    for (size_t i = 0; i < chunk_count; i++) list_seen += chunks[i].first_page; // so that no touch waits for the list
    uint64_t found = 0, began = now_ms(), first = __builtin_ia32_rdtsc();
    for (uint64_t done = 0; done < count;) {
        uint64_t page = mix(picked++) % held;
        if (!seen[page]) continue;
        seen[page] = 0;
        struct chunk *chunk = &chunks[page / CHUNK_PAGES];
        volatile uint64_t *word = chunk->memory + (page % CHUNK_PAGES) * WORDS;
        uint64_t name = chunk->first_page + page % CHUNK_PAGES, before = __builtin_ia32_rdtsc();
        uint64_t value = *word;
        ticks[done++] = __builtin_ia32_rdtsc() - before;
        if (value != name) found++;
    }
    uint64_t all = __builtin_ia32_rdtsc() - first, ms = now_ms() - began;
    pthread_rwlock_unlock(&list_lock);
    atomic_fetch_add(&errors, found);
    qsort(ticks, count, sizeof *ticks, compare_ticks);
    double ns = all ? (double)ms * 1e6 / (double)all : 0;
    uint64_t waited = 0;
    while (waited < count && (double)ticks[count - 1 - waited] * ns >= TOUCH_WAITED_NS) waited++;
    const uint64_t *slow = ticks + (count - waited);
    reply("ok touches=%" PRIu64 " errors=%" PRIu64 " ms=%" PRIu64 " p50=%.0f p99=%.0f max=%.0f waited=%" PRIu64 " waited_p50=%.0f waited_p99=%.0f",
          count, found, ms, (double)ticks[count / 2] * ns, (double)ticks[count * 99 / 100] * ns, (double)ticks[count - 1] * ns, waited,
          waited ? (double)slow[waited / 2] * ns : 0, waited ? (double)slow[waited * 99 / 100] * ns : 0);
    free(ticks);
    free(seen);
}

static void command_holes(const char *arguments) {
    size_t mib;
    if (!parse_mib(arguments, &mib)) return;
    uint8_t *memory = take(mib * CHUNK_BYTES);
    if (!memory) { reply("error out of address space"); return; }
    madvise(memory, mib * CHUNK_BYTES, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < mib * CHUNK_PAGES; i++) memory[i * PAGE] = 1;
    for (size_t i = 0; i < mib * CHUNK_PAGES; i += 2) madvise(memory + i * PAGE, PAGE, MADV_DONTNEED);
    reply("ok pages=%zu", mib * CHUNK_PAGES / 2);
}

static void command_free(const char *arguments) {
    size_t mib;
    if (!parse_mib(arguments, &mib)) return;
    bool scatter = strstr(arguments, "scatter");
    pthread_rwlock_wrlock(&list_lock); // no worker is on any chunk now
    if (mib > chunk_count) {
        reply("error only %zu MiB are held", chunk_count);
    } else {
        for (size_t i = 0; i < mib; i++) {
            size_t at = chunk_count - 1;
            if (scatter) {
                size_t other = (size_t)(mix(next_page + i) % chunk_count);
                struct chunk swapped = chunks[at];
                chunks[at] = chunks[other];
                chunks[other] = swapped;
            }
            munmap(chunks[at].memory, CHUNK_BYTES);
            munmap(chunks[at].record, sizeof *chunks[at].record);
            chunk_count--;
        }
        uint8_t *end = (uint8_t *)(((uintptr_t)&chunks[chunk_count] + PAGE - 1) & ~(uintptr_t)(PAGE - 1));
        madvise(end, (size_t)((uint8_t *)&chunks[MAX_CHUNKS] - end), MADV_DONTNEED);
        reply("ok pages=%zu held=%zu", mib * CHUNK_PAGES, chunk_count * CHUNK_PAGES);
    }
    pthread_rwlock_unlock(&list_lock);
}

static void command_run(const char *arguments) {
    const char *rate = option(arguments, "rate"), *churn = option(arguments, "churn"), *threads = option(arguments, "threads");
    const char *pace = option(arguments, "pace");
    int count = threads ? atoi(threads) : 1;
    if (count < 1 || count > MAX_THREADS) { reply("error threads must be 1 to %d", MAX_THREADS); return; }
    stop_workers();
    rewrite_rate = rate ? strtod(rate, NULL) : 0;
    churn_rate = churn ? strtod(churn, NULL) : 0;
    double mib = pace ? strtod(pace, NULL) : 0; // a chunk is one
    chunk_rest = mib > 0 ? (useconds_t)(1e6 * count / mib) : 0;
    worker_count = count; // before they start: they share the rates by it
    for (int i = 0; i < count; i++)
        if (pthread_create(&workers[i], NULL, work, NULL)) abort();
    reply("ok rate=%g churn=%g threads=%d", rewrite_rate, churn_rate, count);
}

static void command_verify(void) {
    uint64_t pages = 0, found = 0, started = now_ms();
    for (size_t i = 0;; i++) {
        pthread_rwlock_rdlock(&list_lock); // a chunk at a time, so that others get in between
        bool end = i >= chunk_count;
        if (!end) {
            pthread_mutex_lock(&chunks[i].lock);
            found += verify_chunk(&chunks[i]);
            pthread_mutex_unlock(&chunks[i].lock);
            pages += CHUNK_PAGES;
        }
        pthread_rwlock_unlock(&list_lock);
        if (end) break;
    }
    reply("ok pages=%" PRIu64 " errors=%" PRIu64 " total_errors=%" PRIu64 " ms=%" PRIu64, pages, found,
          (uint64_t)atomic_load(&errors), now_ms() - started);
}

static void command_stat(void) {
    pthread_rwlock_rdlock(&list_lock);
    uint64_t oldest = 0, now = now_ms(), held = chunk_count * CHUNK_PAGES, passes = least_verified();
    for (size_t i = 0; i < chunk_count; i++) {
        uint64_t at = __atomic_load_n(&chunks[i].verified_at, __ATOMIC_RELAXED);
        if (at < now && now - at > oldest) oldest = now - at;
    }
    pthread_rwlock_unlock(&list_lock);
    reply("ok pages=%" PRIu64 " pages_verified=%" PRIu64 " passes=%" PRIu64 " errors=%" PRIu64 " rewritten=%" PRIu64
          " churned=%" PRIu64 " oldest_ms=%" PRIu64 " running=%d", held, (uint64_t)atomic_load(&pages_verified), passes,
          (uint64_t)atomic_load(&errors), (uint64_t)atomic_load(&pages_rewritten), (uint64_t)atomic_load(&pages_churned),
          oldest, worker_count);
}

static void command_shell(const char *arguments) {
    FILE *output = popen(arguments, "re");
    if (!output) { reply("error cannot start a shell: %s", strerror(errno)); return; }
    char text[MAX_LINE - 128];
    size_t length = 0;
    for (int c; (c = fgetc(output)) != EOF;) {
        // Percent-encoding keeps an answer one line of key=value pairs.
        bool plain = c > ' ' && c < 127 && c != '%';
        if (length + 4 > sizeof text) continue;
        length += (size_t)sprintf(text + length, plain ? "%c" : "%%%02X", c);
    }
    text[length] = 0;
    int status = pclose(output);
    reply("ok status=%d output=%s", WIFEXITED(status) ? WEXITSTATUS(status) : 255, text);
}

// Answers before it is done: a second later this oracle is gone.
static void command_kexec(const char *arguments) {
    char kernel_path[256] = "", initrd_path[256] = "";
    sscanf(arguments, "%255s %255s", kernel_path, initrd_path);
    int kernel = open(kernel_path, O_RDONLY | O_CLOEXEC), initrd = open(initrd_path, O_RDONLY | O_CLOEXEC);
    int source = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    char text[2048];
    ssize_t length = source < 0 ? -1 : read(source, text, sizeof text - 1);
    if (kernel < 0 || initrd < 0 || length < 1) { reply("error cannot open: %s", strerror(errno)); return; }
    text[length - 1] = 0;
    if (syscall(SYS_kexec_file_load, kernel, initrd, (unsigned long)length, text, 0UL) != 0) {
        reply("error kexec_file_load: %s", strerror(errno));
        return;
    }
    if (fork() == 0) {
        sleep(1);
        reboot(RB_KEXEC);
        _exit(1);
    }
    reply("ok");
}

static void carry_out(const char *name, const char *arguments) {
    if (!strcmp(name, "fill")) command_take(arguments, false);
    else if (!strcmp(name, "fresh")) command_take(arguments, true);
    else if (!strcmp(name, "free")) command_free(arguments);
    else if (!strcmp(name, "use")) command_use(arguments);
    else if (!strcmp(name, "touch")) command_touch(arguments);
    else if (!strcmp(name, "holes")) command_holes(arguments);
    else if (!strcmp(name, "run")) command_run(arguments);
    else if (!strcmp(name, "pause")) { stop_workers(); command_stat(); }
    else if (!strcmp(name, "stat")) command_stat();
    else if (!strcmp(name, "verify")) command_verify();
    else if (!strcmp(name, "sh")) command_shell(arguments);
    else if (!strcmp(name, "meminfo"))
        reply("ok MemTotal=%" PRIu64 " MemFree=%" PRIu64 " MemAvailable=%" PRIu64, meminfo("MemTotal"),
              meminfo("MemFree"), meminfo("MemAvailable"));
    else if (!strcmp(name, "kexec")) command_kexec(arguments);
    else if (!strcmp(name, "poweroff")) reboot(RB_POWER_OFF);
    else if (!strcmp(name, "reboot")) reboot(RB_AUTOBOOT);
    else reply("error no such command: '%.40s'", name);
}

static void serve(char *line) {
    static char last_id[32], text[MAX_LINE + 128];
    char id[32] = "";
    while (*line == ' ') line++;
    if (*line == '#') {
        size_t length = strcspn(line, " ");
        snprintf(id, sizeof id, "%.*s", (int)length, line);
        line += length;
        while (*line == ' ') line++;
    }
    if (!*line) return;
    if (!*id || strcmp(id, last_id)) {
        char *arguments = line + strcspn(line, " ");
        while (*arguments == ' ') *arguments++ = 0;
        snprintf(last_id, sizeof last_id, "%s", id);
        carry_out(line, arguments);
    }
    snprintf(text, sizeof text, "%s%s%s\n", id, *id ? " " : "", answer);
    say(text);
}

int main(void) {
    struct termios terminal;
    if (tcgetattr(STDIN_FILENO, &terminal) == 0) {
        cfmakeraw(&terminal);
        tcsetattr(STDIN_FILENO, TCSANOW, &terminal);
    }
    // Commands that change the list must get in although workers ask for it all the time.
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&list_lock, &attributes);
    if (!(chunks = take(MAX_CHUNKS * sizeof *chunks))) abort();
    say("oracle ready\n");
    char line[MAX_LINE];
    size_t length = 0;
    for (;;) {
        char c;
        ssize_t n = read(STDIN_FILENO, &c, 1);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) { usleep(10000); continue; } // a hang-up of the port: whoever comes next connects to it again
        if (c == '\n' || c == '\r') {
            line[length] = 0;
            if (length) serve(line);
            length = 0;
        } else if (c == 0x15) { // ^U: a client that comes anew does not know what was typed before it
            length = 0;
        } else if (length < sizeof line - 1) {
            line[length++] = c;
        }
    }
}
