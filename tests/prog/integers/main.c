// Integer arithmetic: every width, flags through carries and compares, shifts, division, bit operations.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t state = 88172645463325252ull;
static uint64_t next(void) { state ^= state << 13; state ^= state >> 7; state ^= state << 17; return state; }

#define MIX(type) do { \
    for (int i = 0; i < 2000; i++) { \
        type a = (type)next(), b = (type)next(); int s = next() % (sizeof(type) * 8); \
        sum = sum * 31 + (uint64_t)(type)(a + b); sum ^= (uint64_t)(type)(a - b) << 1; sum += (uint64_t)(type)(a * b); \
        sum = sum * 7 + (uint64_t)(type)(a << s) + (uint64_t)(type)(a >> s); \
        if (b) sum += (uint64_t)(type)(a / (type)(b | 1)) * 3 + (uint64_t)(type)(a % (type)(b | 1)); \
        sum += (a < b) + 2 * (a <= b) + 4 * (a > b) + 8 * (a == b); \
        sum ^= (uint64_t)(type)(a & b) + (uint64_t)(type)(a | b) + (uint64_t)(type)(a ^ b) + (uint64_t)(type)~a + (uint64_t)(type)-a; \
        sum += (type)((a << s) | (a >> ((sizeof(type) * 8 - s) % (sizeof(type) * 8)))); \
    } \
    printf(#type " %016lx\n", sum); } while (0)

static uint32_t crc_table[256];
static uint32_t crc(const unsigned char *p, size_t n) {
    uint32_t c = ~0u;
    while (n--) c = crc_table[(c ^ *p++) & 255] ^ c >> 8;
    return ~c;
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

int main(void) {
    uint64_t sum = 0;
    MIX(uint8_t); MIX(uint16_t); MIX(uint32_t); MIX(uint64_t);
    MIX(int8_t); MIX(int16_t); MIX(int32_t);
    unsigned __int128 wide = 1;
    for (int i = 1; i < 60; i++) wide = wide * (next() | 1) + i, wide ^= wide >> 61, wide -= (unsigned __int128)next() << 64;
    printf("128 %016lx%016lx\n", (uint64_t)(wide >> 64), (uint64_t)wide);
    printf("128/ %016lx %016lx\n", (uint64_t)(wide / 1000000007), (uint64_t)(wide % 1000000007));
    uint64_t bits = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t x = next() >> (i % 63);
        bits = bits * 5 + __builtin_popcountl(x) + (x ? __builtin_clzl(x) + __builtin_ctzl(x) : 0) + __builtin_bswap64(x) + __builtin_bswap32(x);
        long r; bits += __builtin_saddl_overflow(x, bits, &r) + 2 * __builtin_smull_overflow(x, bits, &r) + r;
    }
    printf("bits %016lx\n", bits);
    for (uint32_t i = 0; i < 256; i++) { uint32_t c = i; for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1; crc_table[i] = c; }
    static uint32_t data[20000];
    for (int i = 0; i < 20000; i++) data[i] = next();
    qsort(data, 20000, sizeof *data, compare);
    printf("crc %08x %08x %08x\n", crc((unsigned char *)data, sizeof data), data[0], data[19999]);
    printf("fib %d\n", fib(22));
    uint64_t carry;
    __asm__("xor %%ecx, %%ecx\n stc\n adc $5, %%rcx\n sbb $1, %%rcx\n bt $2, %%rcx\n rcl $3, %%rcx\n lahf\n movzbl %%ah, %%eax\n shl $32, %%rcx\n or %%rcx, %%rax" : "=a"(carry) : : "rcx", "cc");
    // AH: of the flags CF and ZF count (BT leaves the others undefined).
    printf("carries %lx\n", carry & ~0xbeul);
    return 0;
}
