// Code that overwrites an instruction of its own block further down, by every kind of store, in a page that is written for the first
// time and in one that is written all the time.
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

// RDI is the address of the constant that `mov eax, constant` behind the store returns, RSI its new value with the `ret` and three
// `nop`s that follow it.
#define KIND(name, ...) \
    extern unsigned char name##_start[], name##_constant[], name##_end[]; \
    __asm__(".text\n" #name "_start:\n" __VA_ARGS__ "\n.byte 0xb8\n" #name "_constant: .long 0x11111111\nret\nnop\nnop\nnop\n.fill 16, 1, 0x90\nret\n" #name "_end:\n");

KIND(mov32, "mov %esi, (%rdi)")
KIND(mov64, "mov %rsi, (%rdi)")
KIND(mov8, "movb $0, 3(%rdi); mov %esi, %eax; mov %al, (%rdi); shr $8, %eax; mov %al, 1(%rdi); shr $8, %eax; mov %al, 2(%rdi); nop")
KIND(push, "mov %rsp, %rdx; lea 8(%rdi), %rsp; push %rsi; mov %rdx, %rsp")
KIND(pop, "push %rsi; pop (%rdi)")
KIND(xchg, "xchg %esi, (%rdi)")
KIND(cmpxchg, "mov $0x11111111, %eax; lock cmpxchg %esi, (%rdi)")
KIND(cmpxchg8b, "mov %rbx, %r8; mov %esi, %ebx; mov %rsi, %rcx; shr $32, %rcx; mov $0x11111111, %eax; mov $0x909090c3, %edx; lock cmpxchg8b (%rdi); mov %r8, %rbx")
KIND(xadd, "sub $0x11111111, %esi; lock xadd %esi, (%rdi)")
KIND(add, "sub $0x11111111, %esi; add %esi, (%rdi)")
KIND(lock_xor, "xor $0x11111111, %esi; lock xor %esi, (%rdi)")
KIND(movd, "movd %esi, %xmm0; movd %xmm0, (%rdi)")
KIND(movq, "movq %rsi, %xmm0; movq %xmm0, (%rdi)")
KIND(movss, "movd %esi, %xmm0; movss %xmm0, (%rdi)")
KIND(movups, "movups (%rdi), %xmm1; movq %rsi, %xmm0; movsd %xmm0, %xmm1; movups %xmm1, (%rdi)")
KIND(movnti, "movnti %esi, (%rdi)")
KIND(movlps, "movq %rsi, %xmm0; movlps %xmm0, (%rdi)")
KIND(movmmx, "movq %rsi, %mm0; movq %mm0, (%rdi); emms")
KIND(maskmov, "movq %rsi, %xmm0; pcmpeqd %xmm1, %xmm1; movq %xmm1, %xmm1; maskmovdqu %xmm1, %xmm0")
KIND(fistp, "push %rsi; fildll (%rsp); fistpll (%rdi); pop %rax")
KIND(fst, "push %rsi; flds (%rsp); fstps (%rdi); pop %rax")
KIND(stosl, "mov %esi, %eax; stosl")
KIND(rep_stosb, "mov %esi, %eax; mov $1, %ecx; rep stosb; shr $8, %eax; stosb; shr $8, %eax; stosb; movb $0, (%rdi)")
KIND(rep_movsb, "push %rsi; mov %rsp, %rsi; mov $8, %ecx; rep movsb; pop %rax")
KIND(not_, "not %esi; mov %esi, (%rdi); notl (%rdi)")
KIND(shl, "mov %esi, %eax; mov %esi, (%rdi); shll $1, (%rdi); mov %eax, (%rdi)")
KIND(setcc, "mov %rsi, (%rdi); cmpb $1, (%rdi); setz (%rdi)")
KIND(bts, "movl $0, (%rdi); bts %esi, (%rdi)")
KIND(mxcsr, "stmxcsr (%rdi)")

static uint32_t itself(uint32_t v) { return v; }
static uint32_t is_one(uint32_t v) { return (v & ~0xffu) | ((v & 0xff) == 1); }
static uint32_t bit(uint32_t v) { return 1u << v % 32; }
static uint32_t default_mxcsr(uint32_t v) { return 0x1f80; }

#define ROW(name, expected) {#name, name##_start, name##_constant, name##_end, expected}
static const struct kind {
    const char *name;
    unsigned char *start, *constant, *end;
    uint32_t (*expected)(uint32_t);
} rows[] = {
    ROW(mov32, itself), ROW(mov64, itself), ROW(mov8, itself), ROW(push, itself), ROW(pop, itself), ROW(xchg, itself),
    ROW(cmpxchg, itself), ROW(cmpxchg8b, itself), ROW(xadd, itself), ROW(add, itself), ROW(lock_xor, itself), ROW(movd, itself),
    ROW(movq, itself), ROW(movss, itself), ROW(movups, itself), ROW(movnti, itself), ROW(movlps, itself), ROW(movmmx, itself),
    ROW(maskmov, itself), ROW(fistp, itself), ROW(fst, itself), ROW(stosl, itself), ROW(rep_stosb, itself), ROW(rep_movsb, itself),
    ROW(not_, itself), ROW(shl, itself), ROW(setcc, is_one), ROW(bts, bit), ROW(mxcsr, default_mxcsr),
};

typedef uint32_t (*Function)(unsigned char *, uint64_t);

// Runs the code once; whether it returned what it should. `at` is in code that has just been copied there.
static int once(const struct kind *k, unsigned char *at, uint32_t value) {
    unsigned char *constant = at + (k->constant - k->start);
    uint64_t word = (uint64_t)0x909090c3 << 32 | value;
    return ((Function)at)(constant, k->expected == bit ? value % 32 : word) == k->expected(value);
}

int main(void) {
    unsigned char *pages = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int n = sizeof rows / sizeof *rows;
    for (int i = 0; i < n; i++) {
        const struct kind *k = &rows[i];
        unsigned char *page = pages + i * 4096;
        int fresh = 0, again = 0, often = 0;
        for (int round = 0; round < 60; round++) {
            unsigned char *at = page + round % 8 * 128;
            memcpy(at, k->start, k->end - k->start);
            uint32_t value = 0x10203 + round * 5;
            int good = once(k, at, value);
            if (round == 0) fresh = good; else often += good;
            // Again where there has just been code.
            memcpy(at, k->start, k->end - k->start);
            again += once(k, at, value + 1);
        }
        if (fresh != 1 || often != 59 || again != 60) printf("%s: %d %d %d\n", k->name, fresh, often, again);
    }
    printf("%d kinds\n", n);
    return 0;
}
