// Two kinds of hot code: `staying rounds` goes round one loop, `staying calls` through many functions of a few rounds each. What is worth compiling
// differs; what they compute does not.
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define FUNCTION(n) \
    static __attribute__((noinline)) uint64_t function##n(uint64_t x) { \
        for (int i = 0; i < 3; i++) x = (x ^ x >> (7 + n % 5)) * (2 * n + 0x9e3779b97f4a7c15u); \
        return x; \
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

static uint64_t rounds(int n) {
    uint64_t x = 1;
    for (int i = 0; i < n; i++) x = (x ^ x >> 9) * 0x9e3779b97f4a7c15u + (uint64_t)i;
    return x;
}

int main(int argc, char **argv) {
    int only_calls = argc == 2 && !strcmp(argv[1], "calls"), only_rounds = argc == 2 && !strcmp(argv[1], "rounds");
    if (!only_rounds) printf("calls %016llx\n", (unsigned long long)calls(12000));
    if (!only_calls) printf("rounds %016llx\n", (unsigned long long)rounds(1000000));
    return 0;
}
