// Without a C library, so that it executes the same instructions wherever it runs. callgrind's numbers for it are the expected ones.
typedef unsigned long u64;

static long syscall3(long nr, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(nr), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static u64 state = 88172645463325252ul;
static u64 values[300];

__attribute__((noinline)) u64 next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

__attribute__((noinline)) int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

__attribute__((noinline)) void sort(u64 *v, int n) {
    for (int i = 1; i < n; i++) {
        u64 x = v[i];
        int j = i;
        for (; j > 0 && v[j - 1] > x; j--) v[j] = v[j - 1];
        v[j] = x;
    }
}

__attribute__((noinline)) u64 digest(const u64 *v, int n) {
    u64 h = 1469598103934665603ul;
    for (int i = 0; i < n; i++) h = (h ^ v[i]) * 1099511628211ul;
    return h;
}

__attribute__((noinline)) u64 twice(u64 x) { return 2 * x; }
__attribute__((noinline)) u64 plus(u64 x) { return x + 3; }
__attribute__((noinline)) u64 apply(u64 (*f)(u64), u64 x) { return f(x) ^ 1; }

static char area[1000];

/* REP: one instruction here, one and as many as it repeats for callgrind. */
__attribute__((noinline)) void fill(long n) {
    void *to = area;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(7) : "memory");
}

int main(void) {
    u64 (*f[2])(u64) = {twice, plus};
    u64 sum = 0;
    for (int i = 0; i < 300; i++) values[i] = next();
    sort(values, 300);
    sum += digest(values, 300) + fib(15);
    for (int i = 0; i < 500; i++) sum += apply(f[i & 1], sum);
#ifdef REP
    fill(1000);
    fill(0);
#endif
    char out[17];
    for (int i = 0; i < 16; i++) out[i] = "0123456789abcdef"[sum >> (60 - 4 * i) & 15];
    out[16] = '\n';
    syscall3(1, 1, (long)out, 17);
    return 0;
}

__attribute__((naked, noreturn)) void _start(void) {
    __asm__("xor %ebp, %ebp\n call main\n mov %eax, %edi\n mov $231, %eax\n syscall");
}
