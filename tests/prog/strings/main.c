// String functions over all alignments and lengths: libc's vectorised versions and REP instructions.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

int main(void) {
    static unsigned char a[8192], b[8192];
    uint64_t sum = 0;
    for (int i = 0; i < 8192; i++) a[i] = i * 7 + (i >> 5);
    for (int from = 0; from < 33; from += 3)
        for (int n = 0; n < 600; n += n < 70 ? 1 : 37) {
            memset(b, 0xee, 1200);
            memcpy(b + 64 - from, a + from, n);
            for (int i = 0; i < 800; i++) sum = sum * 31 + b[i];
            memmove(b + 70, b + 64, n);
            memmove(b + 10, b + 13, n);
            sum += memcmp(b + 10, a, n) < 0;
            sum = sum * 31 + b[70 + n / 2] + b[10 + n / 3];
        }
    printf("copies %016lx\n", sum);
    char *text = malloc(5000);
    for (int at = 0; at < 40; at++)
        for (int n = 0; n < 300; n += 7) {
            memset(text, 'x', 4999); text[at + n] = 0; text[at + n / 2] = 'y';
            sum = sum * 31 + strlen(text + at) + (strchr(text + at, 'y') - text) + (strrchr(text + at, 'x') ? 1 : 0);
            sum += strcmp(text + at, text + at + 1) > 0;
            sum += (uintptr_t)memchr(text + at, 'y', n + 1) != 0;
            sum += strnlen(text + at, n / 2) + strcspn(text + at, "yz") + strspn(text + at, "x");
        }
    printf("searches %016lx\n", sum);
    strcpy(text, "the quick brown fox");
    strcat(text, " jumps");
    char *save, *word = strtok_r(text, " ", &save);
    for (; word; word = strtok_r(NULL, " ", &save)) printf("%s,", word);
    printf("%s %ld\n", strstr("haystack with needle", "needle"), wcslen(L"wide text"));
    unsigned char *d = b, *s = a; size_t n = 1000;
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
    printf("movsb %ld %ld %zu %d\n", (long)(d - b), (long)(s - a), n, memcmp(a, b, 1000));
    d = b + 999; s = a + 1999; n = 500;
    __asm__ volatile("std\n rep movsb\n cld" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
    printf("backwards %ld %zu %d\n", (long)(d - b), n, memcmp(b + 500, a + 1500, 500));
    uint64_t *q = (uint64_t *)b; n = 32;
    __asm__ volatile("rep stosq" : "+D"(q), "+c"(n) : "a"(0x1122334455667788) : "memory");
    printf("stosq %02x %02x\n", b[0], b[255]);
    d = b; n = 8192; unsigned char equal;
    __asm__ volatile("repe scasb\n sete %2" : "+D"(d), "+c"(n), "=q"(equal) : "a"(0x88) : "memory");
    printf("scasb %ld %zu %d\n", (long)(d - b), n, equal);
    d = a; s = a + 4096; n = 4096;
    __asm__ volatile("repe cmpsb\n sete %3" : "+D"(d), "+S"(s), "+c"(n), "=q"(equal) : : "memory");
    printf("cmpsb %ld %d\n", (long)(d - a), equal);
    return 0;
}
