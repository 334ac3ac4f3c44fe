// Litmus tests of memory order: outcomes that x86-64 forbids must not be seen. docs/MEMORY-MODEL.md names the shapes.
// Each thread runs its half over many slots, so that the threads meet in different places; then every slot is judged.
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { SLOTS = 400, ROUNDS = 12, MAX = 4 };

// x and y in lines of their own; the results of up to four threads in a third.
typedef struct {
    _Alignas(64) uint64_t x;
    _Alignas(64) uint64_t y;
    _Alignas(64) uint64_t r[4];
    _Alignas(64) uint64_t wide[2];
    _Alignas(64) uint64_t wider[2];
} Slot;
static Slot slots[SLOTS];

#define STORE(p, v) __asm__ volatile("movq %1, %0" : "=m"(p) : "r"((uint64_t)(v)) : "memory")
#define LOAD(p) ({ uint64_t v_; __asm__ volatile("movq %1, %0" : "=r"(v_) : "m"(p) : "memory"); v_; })
#define STORE_BYTE(p, v) __asm__ volatile("movb %1, %0" : "=m"(*(uint8_t *)&(p)) : "q"((uint8_t)(v)) : "memory")
#define LOAD_BYTE(p) ({ uint64_t v_; __asm__ volatile("movzbl %1, %k0" : "=r"(v_) : "m"(*(uint8_t *)&(p)) : "memory"); v_; })
#define STORE_ODD(p, v) __asm__ volatile("movl %1, %0" : "=m"(*(uint32_t *)((char *)&(p) + 3)) : "r"((uint32_t)(v)) : "memory")
#define LOAD_ODD(p) ({ uint64_t v_; __asm__ volatile("movl %1, %k0" : "=r"(v_) : "m"(*(uint32_t *)((char *)&(p) + 3)) : "memory"); v_; })
#define STORE_FLOAT(p, v) __asm__ volatile("movq %1, %%xmm0; movsd %%xmm0, %0" : "=m"(p) : "r"((uint64_t)(v)) : "memory", "xmm0")
#define LOAD_FLOAT(p) ({ uint64_t v_; __asm__ volatile("movsd %1, %%xmm0; movq %%xmm0, %0" : "=r"(v_) : "m"(p) : "memory", "xmm0"); v_; })
#define STORE_VECTOR(p, v) __asm__ volatile("movq %1, %%xmm0; movlhps %%xmm0, %%xmm0; movdqa %%xmm0, %0" : "=m"(p) : "r"((uint64_t)(v)) : "memory", "xmm0")
#define LOAD_VECTOR(p) ({ uint64_t v_; __asm__ volatile("movdqa %1, %%xmm0; movq %%xmm0, %0" : "=r"(v_) : "m"(p) : "memory", "xmm0"); v_; })
#define MFENCE() __asm__ volatile("mfence" ::: "memory")
#define LOCK_ADD() ({ uint64_t here_ = 0; __asm__ volatile("lock addq $1, %0" : "+m"(here_) :: "memory", "cc"); })
#define XCHG(p, v) ({ uint64_t v_ = (v); __asm__ volatile("xchgq %0, %1" : "+r"(v_), "+m"(p) :: "memory"); v_; })
#define XADD(p, v) ({ uint64_t v_ = (v); __asm__ volatile("lock xaddq %0, %1" : "+r"(v_), "+m"(p) :: "memory", "cc"); v_; })
// A compare-exchange that fails: a full barrier all the same, and a load.
#define FAIL(p) ({ uint64_t v_ = 99; __asm__ volatile("lock cmpxchgq %2, %1" : "+a"(v_), "+m"(p) : "r"(98ul) : "memory", "cc"); v_; })

typedef void Half(Slot *s);
typedef struct { const char *name; Half *halves[MAX]; int (*forbidden)(const Slot *s); } Test;

#define HALF(name, body) static void name(Slot *s) { uint64_t *r = s->r; (void)r; body; }
#define JUDGE(name, condition) static int name(const Slot *s) { const uint64_t *r = s->r; (void)r; return condition; }

// Message passing: writes in order, reads in order.
HALF(mp0, STORE(s->x, 1); STORE(s->y, 1))
HALF(mp1, r[0] = LOAD(s->y); r[1] = LOAD(s->x))
HALF(mp_byte0, STORE_BYTE(s->x, 1); STORE(s->y, 1))
HALF(mp_byte1, r[0] = LOAD(s->y); r[1] = LOAD_BYTE(s->x))
HALF(mp_odd0, STORE_ODD(s->x, 1); STORE(s->y, 1))
HALF(mp_odd1, r[0] = LOAD(s->y); r[1] = LOAD_ODD(s->x))
HALF(mp_odder0, STORE(s->x, 1); STORE_ODD(s->y, 1))
HALF(mp_odder1, r[0] = LOAD_ODD(s->y); r[1] = LOAD(s->x))
HALF(mp_float0, STORE_FLOAT(s->x, 1); STORE_FLOAT(s->y, 1))
HALF(mp_float1, r[0] = LOAD_FLOAT(s->y); r[1] = LOAD_FLOAT(s->x))
HALF(mp_vector0, STORE_VECTOR(s->wide, 1); STORE_VECTOR(s->wider, 1))
HALF(mp_vector1, r[0] = LOAD_VECTOR(s->wider); r[1] = LOAD_VECTOR(s->wide))
HALF(mp_mixed0, STORE_VECTOR(s->wide, 1); STORE(s->y, 1))
HALF(mp_mixed1, r[0] = LOAD(s->y); r[1] = LOAD_VECTOR(s->wide))
HALF(mp_mixed2, STORE(s->x, 1); STORE_VECTOR(s->wide, 1))
HALF(mp_mixed3, r[0] = LOAD_VECTOR(s->wide); r[1] = LOAD(s->x))
HALF(mp_lock0, STORE(s->x, 1); XADD(s->y, 1))
HALF(mp_lock1, r[0] = XADD(s->y, 0); r[1] = LOAD(s->x))
JUDGE(seen_then_not, r[0] == 1 && r[1] == 0)

// Store buffering: allowed as it stands, forbidden with a full barrier of any kind between.
HALF(sb_fence0, STORE(s->x, 1); MFENCE(); r[0] = LOAD(s->y))
HALF(sb_fence1, STORE(s->y, 1); MFENCE(); r[1] = LOAD(s->x))
HALF(sb_lock0, STORE(s->x, 1); LOCK_ADD(); r[0] = LOAD(s->y))
HALF(sb_lock1, STORE(s->y, 1); LOCK_ADD(); r[1] = LOAD(s->x))
HALF(sb_xchg0, XCHG(s->x, 1); r[0] = LOAD(s->y))
HALF(sb_xchg1, XCHG(s->y, 1); r[1] = LOAD(s->x))
HALF(sb_xadd0, XADD(s->x, 1); r[0] = LOAD(s->y))
HALF(sb_xadd1, XADD(s->y, 1); r[1] = LOAD(s->x))
HALF(sb_read0, STORE(s->x, 1); r[0] = XADD(s->y, 0))
HALF(sb_read1, STORE(s->y, 1); r[1] = XADD(s->x, 0))
HALF(sb_fail0, STORE(s->x, 1); r[0] = FAIL(s->y))
HALF(sb_fail1, STORE(s->y, 1); r[1] = FAIL(s->x))
HALF(sb_vector0, STORE_VECTOR(s->wide, 1); LOCK_ADD(); r[0] = LOAD_VECTOR(s->wider))
HALF(sb_vector1, STORE_VECTOR(s->wider, 1); LOCK_ADD(); r[1] = LOAD_VECTOR(s->wide))
HALF(sb_xvector0, XCHG(s->x, 1); r[0] = LOAD_VECTOR(s->wide))
HALF(sb_xvector1, STORE_VECTOR(s->wide, 1); MFENCE(); r[1] = LOAD(s->x))
JUDGE(neither_seen, r[0] == 0 && r[1] == 0)

// Load buffering: no load sees a store that comes behind it.
HALF(lb0, r[0] = LOAD(s->x); STORE(s->y, 1))
HALF(lb1, r[1] = LOAD(s->y); STORE(s->x, 1))
HALF(lb_vector0, r[0] = LOAD_VECTOR(s->wide); STORE_VECTOR(s->wider, 1))
HALF(lb_vector1, r[1] = LOAD_VECTOR(s->wider); STORE_VECTOR(s->wide, 1))
HALF(lb_mixed0, r[0] = LOAD(s->x); STORE_VECTOR(s->wide, 1))
HALF(lb_mixed1, r[1] = LOAD_VECTOR(s->wide); STORE(s->x, 1))
JUDGE(both_seen, r[0] == 1 && r[1] == 1)

// Independent reads of independent writes: all processors see stores in one order.
HALF(iriw0, STORE(s->x, 1))
HALF(iriw1, STORE(s->y, 1))
HALF(iriw2, r[0] = LOAD(s->x); r[1] = LOAD(s->y))
HALF(iriw3, r[2] = LOAD(s->y); r[3] = LOAD(s->x))
JUDGE(two_orders, r[0] == 1 && r[1] == 0 && r[2] == 1 && r[3] == 0)

// 2+2W: two stores each, in opposite orders; the first ones cannot both be last.
HALF(w22_0, STORE(s->x, 1); STORE(s->y, 2))
HALF(w22_1, STORE(s->y, 1); STORE(s->x, 2))
JUDGE(both_first_last, s->x == 1 && s->y == 1)

// R (with a barrier: without, x86-64 allows it) and S.
HALF(r0, STORE(s->x, 1); STORE(s->y, 1))
HALF(r1, STORE(s->y, 2); MFENCE(); r[0] = LOAD(s->x))
JUDGE(r_forbidden, s->y == 2 && r[0] == 0)
HALF(s0, STORE(s->x, 2); STORE(s->y, 1))
HALF(s1, r[0] = LOAD(s->y); STORE(s->x, 1))
JUDGE(s_forbidden, r[0] == 1 && s->x == 2)

// Coherence: reads of one place never go back. And a write is seen as a whole, or not at all.
HALF(corr0, STORE(s->x, 1); STORE(s->x, 2))
HALF(corr1, r[0] = LOAD(s->x); r[1] = LOAD(s->x))
JUDGE(went_back, r[0] > r[1])
HALF(whole0, STORE(s->x, 0x0101010101010101); STORE(s->x, 0x0202020202020202))
HALF(whole1, r[0] = LOAD(s->x))
JUDGE(torn, r[0] != r[0] % 256 * 0x0101010101010101)

// Write-to-read causality, through a third thread.
HALF(wrc0, STORE(s->x, 1))
HALF(wrc1, r[0] = LOAD(s->x); STORE(s->y, 1))
HALF(wrc2, r[1] = LOAD(s->y); r[2] = LOAD(s->x))
JUDGE(wrc_forbidden, r[0] == 1 && r[1] == 1 && r[2] == 0)

static const Test tests[] = {
    {"MP", {mp0, mp1}, seen_then_not},
    {"MP of bytes", {mp_byte0, mp_byte1}, seen_then_not},
    {"MP with unaligned data", {mp_odd0, mp_odd1}, seen_then_not},
    {"MP with an unaligned flag", {mp_odder0, mp_odder1}, seen_then_not},
    {"MP of floats", {mp_float0, mp_float1}, seen_then_not},
    {"MP of vectors", {mp_vector0, mp_vector1}, seen_then_not},
    {"MP of a vector under an integer", {mp_mixed0, mp_mixed1}, seen_then_not},
    {"MP of an integer under a vector", {mp_mixed2, mp_mixed3}, seen_then_not},
    {"MP with LOCK", {mp_lock0, mp_lock1}, seen_then_not},
    {"SB+MFENCE", {sb_fence0, sb_fence1}, neither_seen},
    {"SB+LOCK elsewhere", {sb_lock0, sb_lock1}, neither_seen},
    {"SB with XCHG", {sb_xchg0, sb_xchg1}, neither_seen},
    {"SB with LOCK XADD", {sb_xadd0, sb_xadd1}, neither_seen},
    {"SB read by LOCK XADD", {sb_read0, sb_read1}, neither_seen},
    {"SB read by a failing CMPXCHG", {sb_fail0, sb_fail1}, neither_seen},
    {"SB+LOCK of vectors", {sb_vector0, sb_vector1}, neither_seen},
    {"SB with XCHG of vectors", {sb_xvector0, sb_xvector1}, neither_seen},
    {"LB", {lb0, lb1}, both_seen},
    {"LB of vectors", {lb_vector0, lb_vector1}, both_seen},
    {"LB of vectors and integers", {lb_mixed0, lb_mixed1}, both_seen},
    {"IRIW", {iriw0, iriw1, iriw2, iriw3}, two_orders},
    {"2+2W", {w22_0, w22_1}, both_first_last},
    {"R+MFENCE", {r0, r1}, r_forbidden},
    {"S", {s0, s1}, s_forbidden},
    {"CoRR", {corr0, corr1}, went_back},
    {"single copy", {whole0, whole1}, torn},
    {"WRC", {wrc0, wrc1, wrc2}, wrc_forbidden},
};

static atomic_int arrived, generation;

static void meet(int threads) {
    int now = atomic_load(&generation);
    if (atomic_fetch_add(&arrived, 1) == threads - 1) {
        atomic_store(&arrived, 0);
        atomic_fetch_add(&generation, 1);
    } else {
        for (int spins = 0; atomic_load(&generation) == now; spins++)
            if (spins > 100) sched_yield();
    }
}

static const Test *test;
static int threads_of(const Test *t) { int n = 0; while (n < MAX && t->halves[n]) n++; return n; }

static void *run(void *arg) {
    long id = (long)arg;
    int threads = threads_of(test);
    for (int round = 0; round < ROUNDS; round++) {
        meet(threads);
        // Opposite directions in half of the rounds: the threads cross once.
        int backward = round & id & 1;
        for (int i = 0; i < SLOTS; i++) test->halves[id](&slots[backward ? SLOTS - 1 - i : i]);
        meet(threads);
        if (id == 0) {
            int bad = 0;
            for (int i = 0; i < SLOTS; i++) bad += test->forbidden(&slots[i]);
            if (bad) printf("%s: %d forbidden outcomes\n", test->name, bad);
            memset(slots, 0, sizeof slots);
        }
    }
    return NULL;
}

// Split locks: no count is lost, also beside plain neighbours.
static struct { char before[62]; uint32_t counter; char after[62]; } __attribute__((packed, aligned(64))) line;

static void *split(void *arg) {
    for (int i = 0; i < 2000; i++) {
        __asm__ volatile("lock incl %0" : "+m"(line.counter) :: "memory", "cc");
        if (arg) line.before[61]++; else line.after[0]++;
    }
    return NULL;
}

// 16 bytes exchanged at once: both halves always belong together.
static _Alignas(16) uint64_t pair[2];

static void *exchange(void *arg) {
    for (int i = 0; i < 3000; ) {
        uint64_t low = ((volatile uint64_t *)pair)[0], high = low * 3;
        uint8_t done;
        __asm__ volatile("lock cmpxchg16b %1; sete %0" : "=q"(done), "+m"(pair), "+a"(low), "+d"(high)
                         : "b"(low + 1), "c"((low + 1) * 3) : "memory", "cc");
        if (high != low * 3) printf("CMPXCHG16B: %lu with %lu\n", (unsigned long)low, (unsigned long)high);
        i += done;
    }
    return arg;
}

static void together(void *(*body)(void *), int threads) {
    pthread_t all[MAX];
    for (long i = 0; i < threads; i++) pthread_create(&all[i], NULL, body, (void *)i);
    for (int i = 0; i < threads; i++) pthread_join(all[i], NULL);
}

int main(void) {
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        test = &tests[i];
        together(run, threads_of(test));
        printf("%s\n", test->name);
    }
    together(split, 2);
    printf("split lock %u, beside it %u %u\n", line.counter, (uint8_t)line.before[61], (uint8_t)line.after[0]);
    together(exchange, 2);
    printf("CMPXCHG16B %lu %lu\n", (unsigned long)pair[0], (unsigned long)pair[1]);
    return 0;
}
