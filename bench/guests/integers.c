// C integer mix: sorting, hashing, a sieve, string building, recursion.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t seed = 12345;
static uint32_t next(void) { return seed = seed * 1664525 + 1013904223; }
static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}
static int ackermann(int m, int n) { return m == 0 ? n + 1 : ackermann(m - 1, n == 0 ? 1 : ackermann(m, n - 1)); }

int main(void) {
    enum { N = 300000, BUCKETS = 1 << 16 };
    uint32_t *data = malloc(N * sizeof *data);
    for (int i = 0; i < N; i++) data[i] = next();
    qsort(data, N, sizeof *data, compare);
    uint64_t sum = 0;
    for (int i = 0; i < N; i += 1000) sum += data[i];

    static int head[BUCKETS];
    int *link = malloc(N * sizeof *link);
    memset(head, -1, sizeof head);
    for (int i = 0; i < N; i++) { uint32_t h = data[i] * 2654435761u >> 16; link[i] = head[h]; head[h] = i; }
    for (int i = 0; i < 2 * N; i++) {
        uint32_t key = next();
        for (int k = head[key * 2654435761u >> 16]; k >= 0; k = link[k]) sum += data[k] == key;
    }

    char *sieve = calloc(1, 8000000);
    int primes = 0;
    for (int i = 2; i < 8000000; i++) {
        if (sieve[i]) continue;
        primes++;
        for (long k = (long)i * i; k < 8000000; k += i) sieve[k] = 1;
    }
    char text[64];
    for (int i = 0; i < 150000; i++) { snprintf(text, sizeof text, "%d:%x", i, i * 7); sum = sum * 31 + text[strlen(text) - 1]; }
    for (uint64_t i = 1; i < 3000000; i++) sum = (sum ^ sum >> 7) * 0x9e3779b97f4a7c15 + sum % i;
    printf("%lu %d %d\n", sum, primes, ackermann(2, 700));
    return 0;
}
