// Three kinds of hot code: `staying rounds` goes round one loop of integers, `staying wide` round one of vectors of 256 bits, `staying calls` through many
// functions of such vectors, of a few rounds each. How they are best translated differs; what they compute does not.
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define WIDE __attribute__((target("avx2"), noinline))

static inline __attribute__((target("avx2"))) uint64_t sum(__m256i v) {
    uint64_t lanes[4];
    _mm256_storeu_si256((__m256i *)lanes, v);
    return lanes[0] + 3 * lanes[1] + 5 * lanes[2] + 7 * lanes[3];
}

#define FUNCTION(n) \
    static WIDE uint64_t function##n(uint64_t x) { \
        __m256i v = _mm256_set1_epi64x((long long)x), step = _mm256_set_epi64x(n, 2 * n, 3 * n, 5 * n); \
        for (int i = 0; i < 3; i++) v = _mm256_add_epi64(_mm256_xor_si256(v, _mm256_srli_epi64(v, 7 + n % 5)), step); \
        return sum(v); \
    }
#define EIGHT(m, n) m(n##0) m(n##1) m(n##2) m(n##3) m(n##4) m(n##5) m(n##6) m(n##7)
#define ALL(m) EIGHT(m, 1) EIGHT(m, 2) EIGHT(m, 3) EIGHT(m, 4) EIGHT(m, 5) EIGHT(m, 6)
ALL(FUNCTION)

#define NAME(n) function##n,
static uint64_t (*volatile const functions[])(uint64_t) = {ALL(NAME)};

static uint64_t calls(int rounds) {
    uint64_t x = 1;
    for (int i = 0; i < rounds; i++)
        for (unsigned f = 0; f < sizeof functions / sizeof *functions; f++) x += functions[f](x);
    return x;
}

static WIDE uint64_t wide(int n) {
    __m256i v = _mm256_set1_epi64x(1), step = _mm256_set_epi64x(1, 2, 3, 5);
    for (int i = 0; i < n; i++) v = _mm256_add_epi64(_mm256_xor_si256(v, _mm256_srli_epi64(v, 9)), step);
    return sum(v);
}

static uint64_t rounds(int n) {
    uint64_t x = 1;
    for (int i = 0; i < n; i++) x = (x ^ x >> 9) * 0x9e3779b97f4a7c15u + (uint64_t)i;
    return x;
}

int main(int argc, char **argv) {
    const char *only = argc == 2 ? argv[1] : "";
    if (!*only || !strcmp(only, "calls")) printf("calls %016llx\n", (unsigned long long)calls(12000));
    if (!*only || !strcmp(only, "wide")) printf("wide %016llx\n", (unsigned long long)wide(1000000));
    if (!*only || !strcmp(only, "rounds")) printf("rounds %016llx\n", (unsigned long long)rounds(1000000));
    return 0;
}
