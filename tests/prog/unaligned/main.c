// Two threads that load and store at every offset from 16 aligned bytes, in each width and kind, over and over: what an AArch64 host refuses of
// ordered accesses must come out right, first in the signal handler and then in code that expects it, with LOCK operations between.
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { ROUNDS = 400, PLACES = 48 };

struct area {
    _Alignas(64) unsigned char bytes[PLACES + 64];
    uint64_t sum;
    double floats;
};

static struct area areas[2];
static _Alignas(64) unsigned char shared[128];

#define ACCESS(type) \
    for (int at = 0; at < PLACES; at++) { \
        type was, is; \
        memcpy(&was, a->bytes + at, sizeof was); \
        is = (type)(was * 3 + (type)at); \
        memcpy(a->bytes + at + 1, &is, sizeof is); \
        a->sum = a->sum * 31 + (uint64_t)is; \
    }

// The sign is extended by the load.
#define SIGNED(type) \
    for (int at = 0; at < PLACES; at++) { \
        type was; \
        memcpy(&was, a->bytes + at, sizeof was); \
        a->sum += (uint64_t)(int64_t)was; \
    }

#define FLOATS(type) \
    for (int at = 0; at < PLACES; at++) { \
        type is = (type)(at + 1) / 4; \
        memcpy(a->bytes + at, &is, sizeof is); \
        type back; \
        memcpy(&back, a->bytes + at, sizeof back); \
        a->floats += back; \
    }

static void *worker(void *argument) {
    struct area *a = argument;
    for (int i = 0; i < (int)sizeof a->bytes; i++) a->bytes[i] = (unsigned char)(i * 7);
    for (int round = 0; round < ROUNDS; round++) {
        ACCESS(uint16_t)
        ACCESS(uint32_t)
        ACCESS(uint64_t)
        SIGNED(int16_t)
        SIGNED(int32_t)
        FLOATS(float)
        FLOATS(double)
        // Across 64 bytes for both, and within 16 that are not aligned.
        __atomic_fetch_add((uint32_t *)(shared + 62), 1, __ATOMIC_SEQ_CST);
        __atomic_fetch_add((uint64_t *)(shared + 19), 1, __ATOMIC_SEQ_CST);
        a->sum += *(volatile uint16_t *)(a->bytes + 15) + *(volatile uint64_t *)(a->bytes + 9);
    }
    return NULL;
}

int main(void) {
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, worker, &areas[i]);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    uint32_t crossing;
    uint64_t within;
    memcpy(&crossing, shared + 62, sizeof crossing);
    memcpy(&within, shared + 19, sizeof within);
    for (int i = 0; i < 2; i++) printf("%016llx %.2f\n", (unsigned long long)areas[i].sum, areas[i].floats);
    printf("%u %llu\n", crossing, (unsigned long long)within);
    return 0;
}
