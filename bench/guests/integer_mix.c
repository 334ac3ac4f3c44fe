// Integer kernels of about 10^8 instructions each, for counting: `integer_mix [KERNEL [ROUNDS]]` runs one of them or all.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t seed = 12345;
static uint32_t next(void) { return seed = seed * 1664525 + 1013904223; }
static uint8_t bytes[1 << 16];

static uint64_t crc(void) {
    uint32_t c = ~0u;
    for (int round = 0; round < 32; round++)
        for (size_t i = 0; i < sizeof bytes; i++) {
            c ^= bytes[i];
            for (int k = 0; k < 8; k++) c = (c >> 1) ^ (0xEDB88320u & -(c & 1));
        }
    return ~c;
}

static uint64_t sieve(void) {
    enum { N = 1 << 20 };
    static uint8_t composite[N];
    uint64_t primes = 0;
    for (int round = 0; round < 10; round++) {
        memset(composite, 0, N);
        for (long i = 2; i < N; i++) {
            if (composite[i]) continue;
            primes++;
            for (long k = 2 * i; k < N; k += i) composite[k] = 1;
        }
    }
    return primes;
}

// A hash table of words: byte loads, fields of 8, 16 and 32 bits.
static uint64_t hash(void) {
    struct Entry { uint32_t key; uint16_t count; uint8_t tag, flag; };
    static struct Entry table[4096];
    uint64_t hits = 0, words = 0;
    for (int round = 0; round < 80; round++)
        for (const uint8_t *s = bytes, *end = bytes + sizeof bytes - 64; s < end;) {
            const uint8_t *word = s;
            uint32_t h = 2166136261u;
            uint8_t c;
            while ((c = *s++) % 16) {
                if (c >= 'A' && c <= 'Z') c |= 0x20;
                h = (h ^ c) * 16777619u;
            }
            uint32_t i = h & 4095;
            while (table[i].key && table[i].key != h) i = (i + 1) & 4095;
            if (!table[i].key) { table[i].key = h; table[i].tag = (uint8_t)(s - word); } else hits++;
            table[i].count++;
            table[i].flag ^= (uint8_t)(h >> 24);
            if (table[i].flag & 0x80) table[i].tag += 3;
            if (++words % 3000 == 0) memset(table, 0, sizeof table);
        }
    return hits;
}

// Quicksort with insertion sort below 12 elements.
static void quick(int32_t *v, long n) {
    while (n > 12) {
        int32_t pivot = v[n / 2];
        long i = 0, j = n - 1;
        while (i <= j) {
            while (v[i] < pivot) i++;
            while (v[j] > pivot) j--;
            if (i <= j) { int32_t t = v[i]; v[i++] = v[j]; v[j--] = t; }
        }
        quick(v, j + 1);
        v += i;
        n -= i;
    }
    for (long i = 1; i < n; i++) {
        int32_t t = v[i];
        long j = i;
        while (j > 0 && v[j - 1] > t) { v[j] = v[j - 1]; j--; }
        v[j] = t;
    }
}

static uint64_t sort(void) {
    enum { N = 100000 };
    static int32_t v[N];
    uint64_t sum = 0;
    for (int round = 0; round < 9; round++) {
        for (int i = 0; i < N; i++) v[i] = (int32_t)next();
        quick(v, N);
        sum = sum * 31 + (uint32_t)v[N / 3];
    }
    return sum;
}

// The C library's sort: a call through a pointer for each comparison.
static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint64_t callback(void) {
    enum { N = 20000 };
    static uint32_t v[N];
    uint64_t sum = 0;
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < N; i++) v[i] = next();
        qsort(v, N, sizeof *v, compare);
        sum = sum * 31 + v[N / 3];
    }
    return sum;
}

// A byte-code interpreter: a jump table.
static uint64_t machine(void) {
    enum { SET, ADD, SUB, XOR, MUL, ADDI, LESS, JNZ, SHR, COPY, HALT };
    static const int8_t code[][4] = {
        {SET, 0, 0, 100}, {SET, 1, 0, 7}, {SET, 2, 0, 0}, {ADD, 2, 1, 0}, {XOR, 2, 0, 0}, {MUL, 1, 1, 0}, {SHR, 1, 0, 3},
        {ADDI, 1, 0, 9}, {COPY, 3, 2, 0}, {LESS, 3, 1, 1}, {SUB, 2, 1, 0}, {ADDI, 0, 0, -1}, {JNZ, 0, 0, -10}, {HALT, 0, 0, 0},
    };
    uint64_t sum = 0;
    for (int round = 0; round < 7000; round++) {
        int32_t r[16] = {0};
        for (const int8_t(*pc)[4] = code;; pc++) {
            const int8_t *i = *pc;
            switch (i[0]) {
            case SET: r[i[1]] = i[3]; continue;
            case ADD: r[i[1]] += r[i[2]]; continue;
            case SUB: r[i[1]] -= r[i[2]]; continue;
            case XOR: r[i[1]] ^= r[i[2]]; continue;
            case MUL: r[i[1]] = (int32_t)((uint32_t)r[i[1]] * (uint32_t)r[i[2]]); continue;
            case ADDI: r[i[1]] += i[3]; continue;
            case LESS: if (r[i[1]] < r[i[2]]) pc += i[3]; continue;
            case JNZ: if (r[i[1]]) pc += i[3]; continue;
            case SHR: r[i[1]] = (int32_t)((uint32_t)r[i[1]] >> (i[3] & 31)); continue;
            case COPY: r[i[1]] = r[i[2]]; continue;
            default: break;
            }
            break;
        }
        sum = sum * 31 + (uint32_t)r[2];
    }
    return sum;
}

// Calls and returns.
__attribute__((noinline)) static uint64_t fib_of(uint64_t n) {
    if (n < 2) return n;
    uint64_t a = fib_of(n - 1);
    __asm__ volatile("" : "+r"(a));
    return a + fib_of(n - 2);
}

static uint64_t fib(void) { return fib_of(31); }

// Formatted text and its length: the C library's own code.
static uint64_t text(void) {
    char line[64];
    uint64_t sum = 0;
    for (int i = 0; i < 120000; i++) {
        snprintf(line, sizeof line, "%d:%x %s", i, i * 7, "word");
        sum = sum * 31 + (uint8_t)line[strlen(line) - 6];
    }
    return sum;
}

// 512-bit numbers: multiplication in full and carries.
static uint64_t bignum(void) {
    enum { WORDS = 8 };
    uint64_t a[WORDS], b[WORDS], r[2 * WORDS];
    for (int i = 0; i < WORDS; i++) { a[i] = next() * 0x9e3779b97f4a7c15u; b[i] = ~a[i] * 3; }
    for (int round = 0; round < 150000; round++) {
        memset(r, 0, sizeof r);
        for (int i = 0; i < WORDS; i++) {
            uint64_t carry = 0;
            for (int j = 0; j < WORDS; j++) {
                unsigned __int128 t = (unsigned __int128)a[i] * b[j] + r[i + j] + carry;
                r[i + j] = (uint64_t)t;
                carry = (uint64_t)(t >> 64);
            }
            r[i + WORDS] = carry;
        }
        for (int i = 0; i < WORDS; i++) { a[i] = r[i] ^ r[i + WORDS]; b[i] += r[i + WORDS] | 1; }
    }
    return a[0] ^ b[7];
}

static const struct { const char *name; uint64_t (*run)(void); } kernels[] = {
    {"crc", crc}, {"sieve", sieve}, {"hash", hash}, {"sort", sort}, {"callback", callback},
    {"machine", machine}, {"fib", fib}, {"text", text}, {"bignum", bignum},
};

int main(int argc, char **argv) {
    int rounds = argc > 2 ? atoi(argv[2]) : 1;
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(next() >> 24);
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
        for (int round = 0; round < rounds && (argc < 2 || !strcmp(argv[1], kernels[i].name)); round++)
            printf("%s %016llx\n", kernels[i].name, (unsigned long long)kernels[i].run());
    return 0;
}
