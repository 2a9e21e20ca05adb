// The bare guest: one program without an operating system, in 32-bit protected mode, which QEMU loads by itself as a
// multiboot kernel. It runs under KVM where a Linux guest can't (the processor's virtualization not being exposed) and
// so exercises page faults raised inside KVM and KVM's own dirtying. It speaks the oracle's line protocol (oracle.c):
//
//   fill MIB     holds that much memory from 16 MiB up, filled        run [rewrite=N]  verifies for ever; rewrites every
//   verify       one pass over every page, now                                         N-th page it verified (0: none)
//   stat         what was found so far                                pause            ends `run`
//   meminfo      MemTotal, in kB
//
// One loop does all: a page of work while `run` lasts, then a look at the serial port. No interrupts, no paging.
// A KVM without the processor's virtualization interprets each instruction of such a guest (about a microsecond each),
// so of a page only eight words are written and checked, one every 512 bytes, the first and last 512 included: pages
// move whole, and a page of another place or time, a zero page, or half a page can't satisfy it. Generations lie below the memory held, from 2 MiB up.
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define MULTIBOOT_MAGIC 0x1badb002u
#define COM1 0x3f8
#define PAGE 4096u
#define WORDS 8u
#define STRIDE (PAGE / WORDS / 4) // in words; so the last word checked is in the page's last 512 bytes
#define FIRST_PAGE 4096u // at 16 MiB
#define MAX_REPORTS 100

__attribute__((section(".multiboot"), used)) static const u32 header[3] = { MULTIBOOT_MAGIC, 0, -MULTIBOOT_MAGIC };
__attribute__((section(".data"), used, aligned(16))) static u8 stack[16384] = { 1 };

static u32 *const generations = (u32 *)0x200000;
static u32 held, position, rewrite_every, until_rewrite, total_kb;
static u64 verified, passes, errors, rewritten, reports;
static int running;

// The loader's descriptor table is in memory of its own; this one is ours.
__asm__(".section .text.entry, \"ax\"\n.globl entry\nentry:\n"
        "\tcli\n\tcld\n\tlgdt descriptors\n\tljmp $8, $1f\n"
        "1:\tmovl $16, %eax\n\tmovl %eax, %ds\n\tmovl %eax, %es\n\tmovl %eax, %ss\n\tmovl %eax, %fs\n\tmovl %eax, %gs\n"
        "\txorl %eax, %eax\n\tlldt %ax\n"
        "\tmovl $stack + 16384, %esp\n\tcall guest_main\n"
        "2:\thlt\n\tjmp 2b\n"
        ".data\n.balign 8\ntable:\t.quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff\n"
        "descriptors:\t.word 23\n\t.long table\n.text\n");

static u8 in(unsigned short port) { u8 v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static void out(unsigned short port, u8 v) { __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port)); }

static void put(char c) {
    while (!(in(COM1 + 5) & 0x20)) {}
    out(COM1, (u8)c);
}

static void text(const char *s) { while (*s) put(*s++); }

static void number(u64 value) {
    char digits[21];
    int at = 20;
    digits[at] = 0;
    do { // 64-bit division by parts; there is no library to do it
        u32 high = (u32)(value >> 32), low, rest = high % 10;
        __asm__("divl %4" : "=a"(low), "=d"(rest) : "0"((u32)value), "1"(rest), "r"(10u) : "cc");
        digits[--at] = (char)('0' + rest);
        value = (u64)(high / 10) << 32 | low;
    } while (value);
    text(digits + at);
}

static void pair(const char *name, u64 value) { put(' '); text(name); put('='); number(value); }

static u32 *page_at(u32 index) { return (u32 *)((FIRST_PAGE + index) * PAGE); }

static u32 seed_of(u32 page, u32 generation) { return page * 0x9e3779b1u ^ generation * 0x85ebca6bu; }

static void fill_page(u32 index) {
    volatile u32 *words = page_at(index);
    u32 generation = ++generations[index], seed = seed_of(index, generation);
    words[0] = index;
    words[STRIDE] = generation;
#pragma GCC unroll 8
    for (u32 i = 2; i < WORDS; i++) words[i * STRIDE] = seed + i * 0x9e3779b1u;
    rewritten++;
}

static int verify_page(u32 index) {
    const volatile u32 *words = page_at(index);
    u32 generation = generations[index], seed = seed_of(index, generation), wrong;
    wrong = (words[0] ^ index) | (words[STRIDE] ^ generation);
#pragma GCC unroll 8
    for (u32 i = 2; i < WORDS; i++) wrong |= words[i * STRIDE] ^ (seed + i * 0x9e3779b1u);
    verified++;
    if (!wrong) return 0;
    errors++;
    if (reports++ < MAX_REPORTS) {
        text("! mismatch");
        pair("page", index); pair("generation", generation); pair("says_page", words[0]); pair("says_generation", words[STRIDE]);
        put('\n');
    }
    return 1;
}

static void work(void) {
    verify_page(position);
    if (rewrite_every && ++until_rewrite >= rewrite_every) { until_rewrite = 0; fill_page(position); }
    if (++position >= held) { position = 0; passes++; }
}

static int starts_with(const char *line, const char *name) {
    while (*name) if (*line++ != *name++) return 0;
    return *line == 0 || *line == ' ';
}

static u32 parse(const char *at) {
    u32 value = 0;
    while (*at >= '0' && *at <= '9' && value < 100000000) value = value * 10 + (u32)(*at++ - '0');
    return value;
}

// Unlike the oracle this remembers no answers: of all commands only `fill` changes anything, and filling anew is harmless.
// Written when the command has been carried out, as mismatches are lines of their own.
static void answer(const char *id, const char *begin) {
    text(id);
    if (*id) put(' ');
    text(begin);
}

static void serve(char *line) {
    const char *id = line;
    if (*line == '#') {
        while (*line && *line != ' ') line++;
        if (*line) *line++ = 0;
    } else {
        id = "";
    }
    if (starts_with(line, "fill")) {
        u32 mib = line[4] ? parse(line + 5) : 0;
        if (!mib || mib > total_kb / 1024 - 16) { answer(id, "error expected 1 to "); number(total_kb / 1024 - 16); text(" MiB\n"); return; }
        held = mib * 256;
        position = 0;
        for (u32 i = 0; i < held; i++) { generations[i] = 0; fill_page(i); }
        answer(id, "ok"); pair("pages", held);
    } else if (starts_with(line, "run")) {
        if (!held) { answer(id, "error nothing is held: fill first\n"); return; }
        rewrite_every = 4;
        for (char *at = line; *at; at++) if (*at == '=') rewrite_every = parse(at + 1);
        running = 1;
        answer(id, "ok"); pair("rewrite", rewrite_every);
    } else if (starts_with(line, "verify")) {
        u64 before = errors;
        for (u32 i = 0; i < held; i++) verify_page(i);
        answer(id, "ok"); pair("pages", held); pair("errors", errors - before); pair("total_errors", errors);
    } else if (starts_with(line, "stat") || starts_with(line, "pause")) {
        if (*line == 'p') running = 0;
        answer(id, "ok"); pair("pages", held); pair("pages_verified", verified); pair("passes", passes); pair("errors", errors);
        pair("rewritten", rewritten); pair("running", (u32)running);
    } else if (starts_with(line, "meminfo")) {
        answer(id, "ok"); pair("MemTotal", total_kb);
    } else {
        answer(id, "error no such command: '"); text(line); put('\'');
    }
    put('\n');
}

static void poll_serial(void) {
    static char line[256];
    static u32 length;
    while (in(COM1 + 5) & 1) {
        char c = (char)in(COM1);
        if (c == '\n' || c == '\r') {
            line[length] = 0;
            if (length) serve(line);
            length = 0;
        } else if (c == 0x15) { // ^U
            length = 0;
        } else if (length < sizeof line - 1) {
            line[length++] = c;
        }
    }
}

__attribute__((used)) void guest_main(void) {
    out(COM1 + 1, 0); // no interrupts
    out(COM1 + 3, 3); // eight bits
    out(COM1 + 2, 1); // FIFOs
    out(COM1 + 4, 3);
    in(COM1); // switching FIFOs dropped what waited; QEMU sends more only after a read
    // The firmware leaves the size of the memory above 16 MiB in the clock's registers, in 64 KiB.
    out(0x70, 0x34); total_kb = in(0x71);
    out(0x70, 0x35); total_kb = (total_kb | (u32)in(0x71) << 8) * 64 + 16 * 1024;
    text("oracle ready\n");
    for (;;) {
        for (int i = 0; running && i < 64; i++) work();
        poll_serial();
    }
}
