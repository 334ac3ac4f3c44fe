// What a second thread costs the first: scaling WHAT prints nanoseconds for a round of work, done by one thread, and by each of two at the
// same time. Both are taken in turn, and the least of each counts, so that what else the machine does has no part in it.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TURNS 15

static volatile long sinks[2];

static long arithmetic(long n) {
    unsigned long x = 1, table[256] = {0};
    while (n--) { x = x * 6364136223846793005 + 1; table[x >> 56] += x >> 33; }
    return table[x & 255];
}
// Each thread its own 256 KB.
static long memory(long n) {
    enum { WORDS = 32768 };
    long *words = calloc(WORDS, sizeof *words), at = 0;
    for (long i = 0; i < n; i++) { words[at] += i; at = (at * 5 + 17 + (words[at] & 1)) & (WORDS - 1); }
    at += words[at];
    free(words);
    return at;
}
__attribute__((noinline)) static long fib(long x) { return x < 2 ? 1 : fib(x - 1) + fib(x - 2); }
static long (*volatile function)(long) = fib;
static long calls(long n) { long x = 0; while (n--) x += function(4); return x; }
static long allocation(long n) {
    void *kept[64] = {0};
    for (long i = 0; i < n; i++) { void **p = &kept[i * 7 & 63]; free(*p); *p = malloc(16 + (i * 37 & 1023)); *(long *)*p = i; }
    for (int i = 0; i < 64; i++) free(kept[i]);
    return n;
}

static const struct { const char *name; long (*run)(long); } all[] = {
    {"arithmetic", arithmetic}, {"memory", memory}, {"calls", calls}, {"allocation", allocation},
};

static long (*work)(long);
static long rounds;
static void *thread(void *sink) { *(volatile long *)sink = work(rounds); return NULL; }

// Seconds until so many threads have done it.
static double with(int threads) {
    struct timespec start, end;
    pthread_t ids[2];
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int i = 0; i < threads; i++) pthread_create(&ids[i], NULL, thread, (void *)&sinks[i]);
    for (int i = 0; i < threads; i++) pthread_join(ids[i], NULL);
    clock_gettime(CLOCK_MONOTONIC, &end);
    return end.tv_sec - start.tv_sec + (end.tv_nsec - start.tv_nsec) * 1e-9;
}

int main(int argc, char **argv) {
    for (unsigned i = 0; argc == 2 && i < sizeof all / sizeof *all; i++) if (!strcmp(argv[1], all[i].name)) work = all[i].run;
    if (!work) return 2;
    for (rounds = 1000; with(1) < 0.1;) rounds *= 2;
    double one = 1e9, two = 1e9;
    for (int turn = 0; turn < TURNS; turn++) {
        double alone = with(1), both = with(2);
        one = alone < one ? alone : one;
        two = both < two ? both : two;
    }
    printf("%.4f %.4f\n", one / rounds * 1e9, two / rounds * 1e9);
    return 0;
}
