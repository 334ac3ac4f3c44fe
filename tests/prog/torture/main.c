// Random signals at random instructions of a checksum: every register, flag and vector must survive each of them. `torture SECONDS` runs
// that long (docs/SIGNALS.md); without a number, as a test, it runs a fixed amount of work.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { WORKERS = 2, ROUND = 20000 };
static atomic_long delivered;
static atomic_int done;
static pthread_t workers[WORKERS];

// Spoils what it may: everything that a signal frame restores.
static void handler(int s, siginfo_t *i, void *c) {
    (void)i; (void)c;
    delivered++;
    __asm__ volatile("pcmpeqd %%xmm0, %%xmm0; pcmpeqd %%xmm7, %%xmm7; pcmpeqd %%xmm15, %%xmm15; fninit; fld1; fldpi; std; cld; stc"
                     ::: "xmm0", "xmm7", "xmm15", "st", "st(1)", "cc", "memory");
    if (s == SIGUSR1 && (delivered & 7) == 0) raise(SIGUSR2);
}

static uint64_t mix(uint64_t x) { x ^= x >> 31; x *= 0x9e3779b97f4a7c15; return x ^ x >> 29; }

// One round: integers with carries, strings, memory, SSE and x87, calls. The same for the same seed.
static uint64_t checksum(uint64_t seed) {
    uint64_t a = seed, b = ~seed, words[64];
    double d = 1.0 + (double)(seed & 1023);
    long double l = 1.0L;
    for (int i = 0; i < 64; i++) words[i] = mix(seed + i);
    for (int i = 0; i < ROUND; i++) {
        __asm__("addq %2, %0; adcq %3, %1; rolq $7, %0; sbbq $0, %1" : "+r"(a), "+r"(b) : "r"(words[i & 63]), "r"(a) : "cc");
        words[(a >> 7) & 63] ^= b + i;
        if ((i & 255) == 0) memmove(words, words + 1, sizeof words - 8);
        d = d * 1.0000001 + (double)(a & 15);
        if ((i & 15) == 0) l = l * 1.0000001L + (long double)(b & 7);
        if ((i & 1023) == 0) a = mix(a ^ (uint64_t)getppid() * 0);
    }
    uint64_t bits;
    memcpy(&bits, &d, 8);
    return mix(a ^ b ^ bits ^ (uint64_t)l);
}

static void *work(void *arg) {
    long id = (long)arg;
    for (long n = 0; !done; n++)
        if (checksum(id * 1000 + n % 16) != checksum(id * 1000 + n % 16)) { puts("a checksum is wrong"); fflush(stdout); _exit(1); }
    return NULL;
}

static void *send(void *arg) {
    uint64_t random = 88172645463325252u;
    while (!done) {
        random ^= random << 13; random ^= random >> 7; random ^= random << 17;
        pthread_kill(workers[random % WORKERS], random & 64 ? SIGUSR1 : SIGRTMIN + (int)(random >> 8 & 3));
        struct timespec pause = {0, (long)(random >> 16 & 0xffff)};
        nanosleep(&pause, NULL);
    }
    return arg;
}

int main(int argc, char **argv) {
    long seconds = argc == 2 ? atol(argv[1]) : 0;
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART};
    int signals[] = {SIGUSR1, SIGUSR2, SIGVTALRM, SIGRTMIN, SIGRTMIN + 1, SIGRTMIN + 2, SIGRTMIN + 3};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) sigaction(signals[i], &action, NULL);
    struct itimerval every = {{0, 1000}, {0, 1000}};
    setitimer(ITIMER_VIRTUAL, &every, NULL);
    uint64_t expected = checksum(42);
    pthread_t sender;
    for (long i = 0; i < WORKERS; i++) pthread_create(&workers[i], NULL, work, (void *)i);
    pthread_create(&sender, NULL, send, NULL);
    time_t end = time(NULL) + seconds;
    int right = 1;
    if (seconds == 0) while (delivered < 2000) right &= checksum(42) == expected;
    while (time(NULL) < end) right &= checksum(42) == expected;
    done = 1;
    pthread_join(sender, NULL);
    for (int i = 0; i < WORKERS; i++) pthread_join(workers[i], NULL);
    if (seconds) fprintf(stderr, "%ld signals\n", (long)delivered);
    printf("torture %s\n", right && delivered >= 2000 ? "right" : "WRONG");
    return 0;
}
