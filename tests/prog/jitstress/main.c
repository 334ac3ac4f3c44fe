// Threads that write, link, move, protect and unmap generated code of their own, while they call into code that they share and that another
// thread changes. Every result is known: functions compute a * x + b. `jitstress SECONDS [SEED]` runs that long (docs/TESTING.md);
// without a number, as a test, it runs a fixed amount of work.
// links: dynamic
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 12, PER_PAGE = 4, FUNCTIONS = PAGES * PER_PAGE, WORKERS = 3, STEPS = 400, COUNTERS = 16 };
enum { RW = PROT_READ | PROT_WRITE, RX = PROT_READ | PROT_EXEC, RWX = RW | PROT_EXEC };

static atomic_int done, working;
static atomic_long calls, faults, changes;
static uint64_t seed;
static __thread sigjmp_buf escape;
static __thread volatile uintptr_t fault_at, fault_pc;

static uint64_t next(uint64_t *random) { *random ^= *random << 13; *random ^= *random >> 7; return *random ^= *random << 17; }

static void fail(const char *what, long got, long wanted) {
    printf("%s: %lx, not %lx\n", what, got, wanted);
    fflush(stdout);
    _exit(1);
}

static void must(int ok, const char *what) { if (!ok) { perror(what); fflush(stdout); _exit(1); } }

// ---- Functions and where they are ----

enum kind { LEAF, LOOP, CALL, JUMP, INDIRECT, KINDS };
struct function { enum kind kind; uint32_t constant, turns; int target; };
// How a page may be written: always; after a change of its protection; through another mapping; by the kernel.
enum way { DIRECT, TOGGLED, DOUBLE, KERNEL, WAYS };
struct page { enum way way; int alive, runs; unsigned char *writable; };
struct arena {
    unsigned char *base, *aliases;
    int file, pipe[2];
    uint64_t random;
    struct page pages[PAGES];
    struct function functions[FUNCTIONS];
};

static unsigned char *place(struct arena *a, int f) { return a->base + f / PER_PAGE * PAGE + f % PER_PAGE * 1024 + 32; }
static unsigned char *page_at(struct arena *a, int p) { return a->base + p * PAGE; }

static int32_t distance(unsigned char *from, unsigned char *to) { return (int32_t)(to - from); }

// The code of a function that is to stand at `at`; its length.
static int encode(struct arena *a, const struct function *f, unsigned char *at, unsigned char *code) {
    unsigned char *target = f->target >= 0 ? place(a, f->target) : NULL;
    int32_t relative;
    switch (f->kind) {
    case LEAF:      // lea eax, [rdi + constant]; ret
        memcpy(code, "\x8d\x87????\xc3", 7); memcpy(code + 2, &f->constant, 4); return 7;
    case LOOP:      // xor eax, eax; mov ecx, turns; 1: lea eax, [rax + rdi + constant]; dec ecx; jnz 1b; ret
        memcpy(code, "\x31\xc0\xb9????\x8d\x84\x38????\xff\xc9\x75\xf5\xc3", 19);
        memcpy(code + 3, &f->turns, 4); memcpy(code + 10, &f->constant, 4); return 19;
    case CALL:      // sub rsp, 8; call target; add rsp, 8; add eax, constant; ret
        memcpy(code, "\x48\x83\xec\x08\xe8????\x48\x83\xc4\x08\x05????\xc3", 19);
        relative = distance(at + 9, target); memcpy(code + 5, &relative, 4); memcpy(code + 14, &f->constant, 4); return 19;
    case JUMP:      // jmp target
        code[0] = 0xe9; relative = distance(at + 5, target); memcpy(code + 1, &relative, 4); return 5;
    default:        // sub rsp, 8; mov rax, target; call rax; add rsp, 8; add eax, constant; ret
        memcpy(code, "\x48\x83\xec\x08\x48\xb8????????\xff\xd0\x48\x83\xc4\x08\x05????\xc3", 26);
        memcpy(code + 6, &target, 8); memcpy(code + 21, &f->constant, 4); return 26;
    }
}

static void put(struct arena *a, int f) {
    struct page *p = &a->pages[f / PER_PAGE];
    unsigned char code[32], *at = place(a, f), *page = page_at(a, f / PER_PAGE);
    int len = encode(a, &a->functions[f], at, code);
    switch (p->way) {
    case DIRECT: memcpy(at, code, len); break;
    case TOGGLED:
        must(mprotect(page, PAGE, RW) == 0, "mprotect");
        memcpy(at, code, len);
        if (p->runs) must(mprotect(page, PAGE, RX) == 0, "mprotect");
        break;
    case DOUBLE: memcpy(p->writable + (at - page), code, len); break;
    default: must(write(a->pipe[1], code, len) == len && read(a->pipe[0], at, len) == len, "read");
    }
}

static void invent(struct arena *a, int f) {
    struct function *function = &a->functions[f];
    uint64_t r = next(&a->random);
    // Only functions before it are called: so there is no recursion.
    function->kind = f == 0 ? LEAF : r % KINDS;
    function->constant = r >> 32;
    function->turns = (r >> 8) % 16 == 0 ? 2000 : 1 + (r >> 12) % 20;
    function->target = function->kind >= CALL ? (int)((r >> 20) % f) : -1;
}

// ---- What a call must yield ----

// Where a call of `f` faults (nowhere: NULL), else a and b.
static unsigned char *expected(struct arena *a, int f, uint32_t *slope, uint32_t *rest) {
    const struct function *function = &a->functions[f];
    const struct page *page = &a->pages[f / PER_PAGE];
    if (!page->alive || !page->runs) return place(a, f);
    *slope = 1; *rest = function->constant;
    if (function->kind == LOOP) { *slope = function->turns; *rest = function->constant * function->turns; }
    if (function->kind < CALL) return NULL;
    unsigned char *fault = expected(a, function->target, slope, rest);
    if (!fault && function->kind != JUMP) *rest += function->constant;
    return fault;
}

static void handler(int signal, siginfo_t *info, void *context) {
    (void)signal;
    fault_at = (uintptr_t)info->si_addr;
    fault_pc = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    siglongjmp(escape, 1);
}

// What is wrong with a call of `f`.
static void report(struct arena *a, int f) {
    for (int depth = 0; f >= 0; f = a->functions[f].target, depth++) {
        const struct function *function = &a->functions[f];
        const struct page *page = &a->pages[f / PER_PAGE];
        printf("%*sarena %p function %d at %p: kind %d, page: way %d, %s, %s\n", depth, "", (void *)a, f, (void *)place(a, f), function->kind,
               page->way, page->alive ? "mapped" : "not mapped", page->runs ? "executable" : "not executable");
    }
}

static void check(struct arena *a, uint64_t *random, int count) {
    for (int i = 0; i < count; i++) {
        uint64_t r = next(random);
        int f = r % FUNCTIONS;
        uint32_t x = r >> 32, slope, rest;
        unsigned char *fault = expected(a, f, &slope, &rest);
        calls++;
        if (sigsetjmp(escape, 1) == 0) {
            uint32_t result = ((uint32_t (*)(uint32_t))place(a, f))(x);
            if (!fault && result == slope * x + rest) continue;
            report(a, f);
            fail(fault ? "no fault" : "result", result, fault ? (long)fault : slope * x + rest);
        } else {
            faults++;
            if (fault_at == (uintptr_t)fault && fault_pc == (uintptr_t)fault) continue;
            report(a, f);
            fail(fault_at == fault_pc ? "fault" : "fault of data", (long)fault_at, (long)fault);
        }
    }
}

// ---- What happens to pages ----

static void map_page(struct arena *a, int p) {
    struct page *page = &a->pages[p];
    unsigned char *at = page_at(a, p);
    page->way = next(&a->random) % WAYS;
    void *mapped;
    if (page->way == DOUBLE) {
        mapped = mmap(at, PAGE, RX, MAP_SHARED | MAP_FIXED, a->file, p * PAGE);
        page->writable = a->aliases + p * PAGE;
    } else {
        mapped = mmap(at, PAGE, page->way == TOGGLED ? RX : RWX, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    }
    must(mapped == at, "mmap");
    page->alive = page->runs = 1;
    for (int f = p * PER_PAGE; f < (p + 1) * PER_PAGE; f++) { invent(a, f); put(a, f); }
}

static void reserve(struct arena *a, int p) {
    must(mmap(page_at(a, p), PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED, "mmap");
    a->pages[p].alive = 0;
}

// Moves a page to where none is; what it calls by distance is written anew.
static void move_page(struct arena *a, int from, int to) {
    if (!a->pages[from].alive || a->pages[to].alive || a->pages[from].way == DOUBLE) return;
    must(mremap(page_at(a, from), PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, page_at(a, to)) == page_at(a, to), "mremap");
    a->pages[to] = a->pages[from];
    for (int i = 0; i < PER_PAGE; i++) {
        struct function *f = &a->functions[to * PER_PAGE + i];
        *f = a->functions[from * PER_PAGE + i];
        if (f->target >= to * PER_PAGE) { f->kind = LEAF; f->target = -1; }
        if (f->kind != LEAF && f->kind != LOOP && f->kind != INDIRECT) put(a, to * PER_PAGE + i);
        if (f->kind == LEAF) put(a, to * PER_PAGE + i);
    }
    reserve(a, from);
}

static void change(struct arena *a) {
    uint64_t r = next(&a->random);
    int p = (r >> 8) % PAGES, f = p * PER_PAGE + (r >> 16) % PER_PAGE;
    struct page *page = &a->pages[p];
    changes++;
    switch (r % 16) {
    default:
        if (page->alive && (page->runs || page->way != KERNEL)) { invent(a, f); put(a, f); }
        break;
    case 10: case 11:
        if (page->alive) must(munmap(page_at(a, p), PAGE) == 0, "munmap");
        map_page(a, p);
        break;
    case 12: reserve(a, p); break;
    case 13: move_page(a, p, (r >> 24) % PAGES); break;
    case 14: case 15:
        if (!page->alive) break;
        page->runs = !page->runs;
        must(mprotect(page_at(a, p), PAGE, page->way == DOUBLE ? (page->runs ? RX : PROT_READ) : page->way == TOGGLED ? (page->runs ? RX : RW) : page->runs ? RWX : RW) == 0, "mprotect");
    }
}

static void prepare(struct arena *a, uint64_t number) {
    a->random = (seed + number) * 0x9e3779b97f4a7c15 | 1;
    a->file = memfd_create("code", 0);
    must(a->file >= 0 && ftruncate(a->file, PAGES * PAGE) == 0 && pipe(a->pipe) == 0, "memfd");
    a->base = mmap(NULL, PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    a->aliases = mmap(NULL, PAGES * PAGE, RW, MAP_SHARED, a->file, 0);
    must(a->base != MAP_FAILED && a->aliases != MAP_FAILED, "mmap");
    for (int p = 0; p < PAGES; p++) map_page(a, p);
}

// ---- Code that all call ----

static struct arena shared;
static pthread_rwlock_t shared_lock;
// Functions that are changed while others run them: `mov eax, version; ret`, by one aligned store each.
static unsigned char *counters, *counters_writable;
static atomic_uint announced[COUNTERS], written[COUNTERS];

static void prepare_counters(void) {
    int file = memfd_create("counters", 0);
    must(file >= 0 && ftruncate(file, 2 * PAGE) == 0, "memfd");
    counters = mmap(NULL, 2 * PAGE, RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    // The second page by another mapping.
    must(mmap(counters + PAGE, PAGE, RX, MAP_SHARED | MAP_FIXED, file, PAGE) == counters + PAGE, "mmap");
    counters_writable = mmap(NULL, 2 * PAGE, RW, MAP_SHARED, file, 0);
    for (int i = 0; i < COUNTERS; i++) memcpy((i & 1 ? counters_writable + PAGE : counters) + 128 * i + 3, "\xb8\0\0\0\0\xc3", 6);
}

static void raise_counter(int i) {
    unsigned char *at = (i & 1 ? counters_writable + PAGE : counters) + 128 * i + 4;
    uint32_t version = ++announced[i];
    __atomic_store_n((uint32_t *)at, version, __ATOMIC_SEQ_CST);
    written[i] = version;
}

static void check_counter(int i) {
    unsigned least = written[i];
    unsigned now = ((unsigned (*)(void))(counters + (i & 1 ? PAGE : 0) + 128 * i + 3))();
    if (now < least || now > announced[i]) fail("version", now, least);
}

// A page in which each thread has functions of its own: who writes to one gives up the translations of all.
enum { OWN = 5 };
static unsigned char *common;

static void check_common(struct arena *a, int worker, uint32_t constants[OWN]) {
    uint64_t r = next(&a->random);
    unsigned char code[8] = "\x8d\x87????\xc3";     // lea eax, [rdi + constant]; ret
    int which = r % OWN;
    unsigned char *at = common + 256 * worker + 48 * which;
    constants[which] = r >> 32;
    memcpy(code + 2, &constants[which], 4);
    if (r & 64) memcpy(at, code, 7);
    else must(write(a->pipe[1], code, 7) == 7 && read(a->pipe[0], at, 7) == 7, "read");
    for (int i = 0; i < OWN; i++, which = (which + 1) % OWN) {
        if (!constants[which]) continue;
        uint32_t result = ((uint32_t (*)(uint32_t))(common + 256 * worker + 48 * which))(r);
        if (result != constants[which] + (uint32_t)r) fail("common", result, constants[which] + (uint32_t)r);
    }
}

static void *work(void *arg) {
    struct arena *a = calloc(1, sizeof *a);
    uint32_t constants[OWN] = {0};
    prepare(a, (uintptr_t)arg);
    for (long step = 0; seed ? !done : step < STEPS; step++) {
        change(a);
        check(a, &a->random, 4);
        if (step % 4 == 0) {
            pthread_rwlock_rdlock(&shared_lock);
            check(&shared, &a->random, 8);
            pthread_rwlock_unlock(&shared_lock);
        }
        check_counter(next(&a->random) % COUNTERS);
        check_common(a, (uintptr_t)arg, constants);
    }
    working--;
    return NULL;
}

static void *change_shared(void *arg) {
    uint64_t random = 88172645463325252u;
    while (working) {
        pthread_rwlock_wrlock(&shared_lock);
        for (int i = 0; i < 3; i++) change(&shared);
        pthread_rwlock_unlock(&shared_lock);
        for (int i = 0; i < 4; i++) raise_counter(next(&random) % COUNTERS);
        usleep(200);
    }
    return arg;
}

int main(int argc, char **argv) {
    long seconds = argc > 1 ? atol(argv[1]) : 0;
    seed = argc > 2 ? strtoull(argv[2], NULL, 0) : seconds;
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&shared_lock, &attributes);
    prepare(&shared, 0);
    prepare_counters();
    common = mmap(NULL, PAGE, RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    working = WORKERS;
    pthread_t workers[WORKERS], changer;
    for (uintptr_t i = 0; i < WORKERS; i++) pthread_create(&workers[i], NULL, work, (void *)(i + 1));
    pthread_create(&changer, NULL, change_shared, NULL);
    if (seconds) { sleep(seconds); done = 1; }
    for (int i = 0; i < WORKERS; i++) pthread_join(workers[i], NULL);
    pthread_join(changer, NULL);
    if (seconds) fprintf(stderr, "%ld calls, %ld of them faults, %ld changes\n", (long)calls, (long)faults, (long)changes);
    puts("stress right");
    return 0;
}
