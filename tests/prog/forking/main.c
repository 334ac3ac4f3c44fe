// Forks beside threads that are busy in everything that a translator may lock: computed jumps, code that changes, operations across
// 16 bytes, estimates, limits, signal actions. A child that finds a lock held by a thread that it does not have waits for ever: an alarm ends it.
// links: dynamic static
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xmmintrin.h>

enum { FUNCTIONS = 256, THREADS = 3 };

// mov eax, edi; add eax, imm32; ret
static const unsigned char code[] = {0x89, 0xf8, 0x05, 0, 0, 0, 0, 0xc3};
typedef unsigned function(unsigned);

// FUNCTIONS functions that stay, 16 bytes each, and behind them a page for each thread whose function is written anew for each call.
static unsigned char *functions, *changing;

static function *put(unsigned char *at, unsigned addend) {
    memcpy(at, code, sizeof code);
    memcpy(at + 3, &addend, 4);
    return (function *)at;
}

static _Alignas(64) unsigned char line[64];

// One round; the number of wrong answers.
static int round_of(unsigned thread, unsigned n) {
    int wrong = 0;
    for (unsigned i = 0; i < 2 * FUNCTIONS; i++) {
        unsigned k = (n * 7 + i * 37 + thread) % FUNCTIONS;
        wrong += ((function *)(functions + 16 * k))(n) != n + k;
    }
    function *f = put(changing + 4096 * thread, n);
    wrong += f(thread) != thread + n;
    // Across 16 bytes.
    uint64_t *crossing = (uint64_t *)(line + 12);
    for (int i = 0; i < 20; i++) __atomic_fetch_add(crossing, 1, __ATOMIC_SEQ_CST);
    float r = _mm_cvtss_f32(_mm_rcp_ss(_mm_set_ss(4.0f))) + _mm_cvtss_f32(_mm_rsqrt_ss(_mm_set_ss(16.0f)));
    wrong += r < 0.49f || r > 0.51f;
    struct rlimit stack;
    wrong += getrlimit(RLIMIT_STACK, &stack) || setrlimit(RLIMIT_STACK, &stack);
    wrong += shmdt((void *)4096) != -1 || errno != EINVAL;
    struct sigaction action;
    wrong += sigaction(SIGUSR1, NULL, &action) != 0;
    return wrong;
}

static atomic_int stop, wrong_in_threads;

static void *busy(void *arg) {
    for (unsigned n = 0; !stop; n++) wrong_in_threads += round_of((unsigned)(uintptr_t)arg, n);
    return NULL;
}

int main(int argc, char **argv) {
    int forks = argc > 1 ? atoi(argv[1]) : 60;
    functions = mmap(NULL, 16 * FUNCTIONS + 4096 * (THREADS + 1), PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (unsigned i = 0; i < FUNCTIONS; i++) put(functions + 16 * i, i);
    changing = functions + 16 * FUNCTIONS;
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, busy, (void *)i);
    int hung = 0, wrong = 0;
    for (int i = 0; i < forks; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            alarm(30);
            int bad = 0;
            for (unsigned n = 0; n < 4; n++) bad += round_of(THREADS, i + n);
            _exit(bad != 0);
        }
        int status;
        waitpid(pid, &status, 0);
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) hung++;
        else wrong += status != 0;
    }
    stop = 1;
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    printf("children hung %d, wrong %d; threads wrong %d\n", hung, wrong, wrong_in_threads);
}
