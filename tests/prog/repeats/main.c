// REP MOVS and STOS, which are done in large steps where nobody can tell: all widths, short distances between source and destination, both directions,
// ends of pages, and what a handler sees of a fault in the middle.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { PAGE = 4096 };
typedef unsigned char byte;
struct done { byte *d, *s; uint64_t n; };

#define REPEAT(name, text)                                                                                              \
    static struct done name(byte *d, byte *s, uint64_t n, uint64_t value, int down) {                                   \
        if (down) __asm__ volatile("std\n rep " text "\n cld" : "+D"(d), "+S"(s), "+c"(n) : "a"(value) : "memory");     \
        else __asm__ volatile("rep " text : "+D"(d), "+S"(s), "+c"(n) : "a"(value) : "memory");                         \
        return (struct done){d, s, n};                                                                                  \
    }
REPEAT(movsb, "movsb")
REPEAT(movsw, "movsw")
REPEAT(movsl, "movsl")
REPEAT(movsq, "movsq")
REPEAT(stosb, "stosb")
REPEAT(stosw, "stosw")
REPEAT(stosl, "stosl")
REPEAT(stosq, "stosq")

typedef struct done repeat(byte *, byte *, uint64_t, uint64_t, int);
static repeat *const all[] = {movsb, movsw, movsl, movsq, stosb, stosw, stosl, stosq};
static const char *const names[] = {"movsb", "movsw", "movsl", "movsq", "stosb", "stosw", "stosl", "stosq"};

static byte *area;
static uint64_t sum;

static void add(const void *from, size_t len) {
    for (size_t i = 0; i < len / 8; i++) sum = (sum ^ ((const uint64_t *)from)[i]) * 0x9e3779b97f4a7c15 ^ sum >> 29;
}

static void fill(void) {
    for (int i = 0; i < 4 * PAGE; i++) area[i] = i * 7 + (i >> 5);
}

static sigjmp_buf back;

static void on_fault(int signo, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    int64_t seen[] = {signo, (byte *)info->si_addr - area, r[REG_RCX], (byte *)r[REG_RDI] - area, (byte *)r[REG_RSI] - area};
    add(seen, sizeof seen);
    siglongjmp(back, 1);
}

int main(void) {
    area = mmap(NULL, 5 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(area + 4 * PAGE, PAGE, PROT_NONE);
    for (int f = 0; f < 8; f++) {
        int width = 1 << f % 4;
        sum = 0;
        fill();
        // Around a page's end, and near each other.
        for (int start = PAGE - 140; start < PAGE + 12; start += 71)
            for (int distance = -70; distance <= 70; distance += distance > -20 && distance < 20 ? 3 : 13)
                for (int n = 0; n * width < 300; n += n < 5 ? 1 : 17)
                    for (int down = 0; down < 2; down++) {
                        byte *s = area + start + (down ? 400 : 0);
                        struct done done = all[f](s + distance, s, n, 0x1122334455667788 + n, down);
                        int64_t ends[] = {done.d - area, done.s - area, done.n};
                        add(ends, sizeof ends);
                        add(area + PAGE - 496, 1096);
                    }
        printf("%s %016lx\n", names[f], sum);
    }
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
    for (int f = 0; f < 8; f++) {
        int width = 1 << f % 4;
        sum = 0;
        fill();
        // The destination's end cannot be written to, or the source's read. Elements end with the page: how much of one that crosses it is written
        // is the processor's business.
        for (int left = 0; left < 300; left += left < 80 ? 3 * width : 16 * width)
            for (int reads = 0; reads < 2; reads++) {
                byte *end = area + 4 * PAGE - left / width * width, *other = area + PAGE + left / width * 2 * width;
                if (!sigsetjmp(back, 0)) {
                    struct done done = all[f](reads ? other : end, reads ? end : other, 320, 0x8877665544332211, 0);
                    int64_t ends[] = {done.d - area, done.s - area, done.n};
                    add(ends, sizeof ends);
                }
                add(other - 64, 512), add(area + 4 * PAGE - 512, 512);
            }
        printf("%s %016lx\n", names[f], sum);
    }
    return 0;
}
