// Self-modifying code in the ways that are hard to notice: by itself, beside data, through other mappings, by the kernel, by another
// thread, by a file that changes; and code that stays while its page changes.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

typedef long (*Function)(long);
enum { PAGE = 4096 };
static const int RWX = PROT_READ | PROT_WRITE | PROT_EXEC;

// lea eax, [rdi + constant]; ret
static int emit(unsigned char *at, int constant) {
    unsigned char code[] = {0x8d, 0x87, 0, 0, 0, 0, 0xc3};
    memcpy(code + 2, &constant, 4);
    memcpy(at, code, sizeof code);
    return sizeof code;
}

static unsigned char *pages(int count, int prot) {
    void *p = mmap(NULL, count * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) { perror("mmap"); exit(1); }
    return p;
}

static long call(const void *code, long argument) { return ((Function)code)(argument); }

// The next instruction, written by the one before: mov byte [rip + 1], dil (its constant); mov al, 0.
static void next_instruction(void) {
    unsigned char *p = pages(1, RWX);
    static const unsigned char code[] = {
        0x31, 0xc0,                                 // xor eax, eax
        0x40, 0x88, 0x3d, 1, 0, 0, 0,               // mov [rip + 1], dil
        0xb0, 0,                                    // mov al, 0
        0xc3,                                       // ret
    };
    memcpy(p, code, sizeof code);
    long sum = 0;
    for (int i = 0; i < 3000; i++) sum += call(p, i & 127);
    printf("next instruction %ld\n", sum);
}

// A loop that changes its own step: the registers that it has changed so far must stay.
static void own_loop(void) {
    unsigned char *p = pages(1, RWX);
    static const unsigned char code[] = {
        0x31, 0xc0,                                 // xor eax, eax
        0x31, 0xc9,                                 // xor ecx, ecx
        0x83, 0xc0, 1,                              // add eax, 1          <- its constant changes
        0xff, 0xc1,                                 // inc ecx
        0xf6, 0xc1, 63,                             // test cl, 63
        0x75, 6,                                    // jnz +6
        0xfe, 0x05, 0xf2, 0xff, 0xff, 0xff,         // inc byte [rip - 14]
        0x39, 0xf9,                                 // cmp ecx, edi
        0x72, 0xec,                                 // jb -20
        0xc3,                                       // ret
    };
    memcpy(p, code, sizeof code);
    printf("own loop %ld\n", call(p, 5000));
}

// Code and a counter in one page.
static void mixed(void) {
    unsigned char *p = pages(1, RWX);
    static const unsigned char code[] = {
        0xff, 0x05, 0xfa, 0x00, 0x00, 0x00,         // inc dword [rip + 250]
        0x8b, 0x05, 0xf4, 0x00, 0x00, 0x00,         // mov eax, [rip + 244]
        0xc3,
    };
    memcpy(p, code, sizeof code);
    long last = 0;
    for (int i = 0; i < 200000; i++) last = call(p, 0);
    emit(p + 512, 1);
    for (int i = 0; i < 1000; i++) { emit(p + 512, i); last += call(p + 512, 1); }
    printf("mixed %ld\n", last);
}

// Functions that stay, in pages to which others are added, and whose protection is changed and changed back.
static void appended(void) {
    unsigned char *p = pages(2, RWX);
    long sum = 0;
    for (int i = 0; i < 250; i++) {
        emit(p + 32 * i, i);
        for (int k = 0; k <= i; k += 7) sum += call(p + 32 * k, 1);
    }
    for (int i = 0; i < 200; i++) {
        mprotect(p, 2 * PAGE, PROT_READ | PROT_WRITE);
        if (i % 10 == 0) emit(p + 32 * (i % 7), 1000 + i);
        mprotect(p, 2 * PAGE, PROT_READ | PROT_EXEC);
        for (int k = 0; k < 250; k += 5) sum += call(p + 32 * k, 1);
    }
    printf("appended %ld\n", sum);
}

// The carry flag of a block that ends with a jump: the target does not read it, and then it does.
static void flags(void) {
    unsigned char *p = pages(2, RWX);
    static const unsigned char first[] = {
        0x48, 0x01, 0xff,                           // add rdi, rdi
        0xe9, 0xf8, 0x0f, 0, 0,                     // jmp +4088: the other page
    };
    static const unsigned char ignores[] = {0x31, 0xc0, 0xc3};              // xor eax, eax; ret
    static const unsigned char reads[] = {0x0f, 0x92, 0xc0, 0x0f, 0xb6, 0xc0, 0xc3};    // setc al; movzx eax, al; ret
    memcpy(p, first, sizeof first);
    long sum = 0;
    for (int i = 0; i < 100; i++) {
        memcpy(p + PAGE, i & 1 ? reads : ignores, sizeof reads);
        for (int k = 0; k < 30; k++) sum += call(p, k & 1 ? -1 : 1);
    }
    printf("flags %ld\n", sum);
}

static void double_mapping(void) {
    int fd = memfd_create("code", 0);
    if (ftruncate(fd, PAGE)) return;
    unsigned char *w = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    unsigned char *x = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    long sum = 0;
    for (int i = 0; i < 1000; i++) { emit(w, i); for (int k = 0; k < 5; k++) sum += call(x, k); }
    printf("double mapping %ld\n", sum);
    // Written by another process.
    emit(w, 1);
    long before = call(x, 0);
    int status[2];
    if (pipe(status)) return;
    if (fork() == 0) { emit(w, 2); _exit(write(status[1], "", 1) != 1); }
    char done;
    if (read(status[0], &done, 1) != 1) return;
    printf("another process %ld %ld\n", before, call(x, 0));
}

// Anonymous shared memory: this process's own at first, then a child's as well.
static void shared_with_a_child(void) {
    unsigned char *p = mmap(NULL, PAGE, RWX, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    long sum = 0;
    for (int i = 0; i < 100; i++) { emit(p, i); for (int k = 0; k < 50; k++) sum += call(p, k); }
    int to[2], from[2];
    if (pipe(to) || pipe(from)) return;
    char byte = 0;
    if (fork() == 0) {
        for (int i = 0; i < 20 && read(to[0], &byte, 1) == 1; i++) { emit(p, 1000 + i); if (write(from[1], "", 1) != 1) break; }
        _exit(0);
    }
    for (int i = 0; i < 20; i++) {
        if (write(to[1], "", 1) != 1 || read(from[0], &byte, 1) != 1) return;
        sum += call(p, 0);
    }
    printf("shared with a child %ld\n", sum);
}

static void by_the_kernel(void) {
    unsigned char *p = pages(2, RWX), fresh[16];
    unsigned char *at = p + 100;
    int fds[2], pair[2];
    char name[] = "/tmp/smc-XXXXXX";
    int file = mkstemp(name);
    unlink(name);
    if (pipe(fds) || socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) return;
    long sum = 0;
    for (int i = 0; i < 60; i++) {
        int len = emit(fresh, i);
        struct iovec parts[] = {{at, 3}, {at + 3, len - 3}}, from = {fresh, len}, to = {at, len};
        switch (i % 6) {
        case 0: if (write(fds[1], fresh, len) != len || read(fds[0], at, len) != len) return; break;
        case 1: if (send(pair[0], fresh, len, 0) != len || recv(pair[1], at, len, 0) != len) return; break;
        case 2: if (write(fds[1], fresh, len) != len || readv(fds[0], parts, 2) != len) return; break;
        case 3: if (pwrite(file, fresh, len, 9) != len || pread(file, at, len, 9) != len) return; break;
        case 4: {
            ssize_t done = process_vm_writev(getpid(), &from, 1, &to, 1, 0);
            if (done < 0 && errno == ENOSYS) // an emulator below us
                done = pwrite(file, fresh, len, 9) == len ? pread(file, at, len, 9) : -1;
            if (done != len) { perror("process_vm_writev"); return; }
            break;
        }
        case 5: {
            struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
            if (send(pair[0], fresh, len, 0) != len || recvmsg(pair[1], &message, 0) != len) return;
        }
        }
        sum += call(at, 1000);
    }
    printf("by the kernel %ld\n", sum);
}

static unsigned char *volatile shared_code;

static void *rewrite(void *arg) {
    for (int i = 1; i <= 200; i++) {
        // One aligned store: a processor sees the old constant or the new one.
        __atomic_store_n((uint32_t *)(shared_code + 4), i, __ATOMIC_SEQ_CST);
        usleep(50);
    }
    return arg;
}

static void by_another_thread(void) {
    shared_code = pages(1, RWX);
    memcpy(shared_code, "\x90\x90\x90\xb8\0\0\0\0\xc3", 9);     // nop; nop; nop; mov eax, constant; ret
    pthread_t thread;
    pthread_create(&thread, NULL, rewrite, NULL);
    long last = 0, back = 0;
    while (last < 200) {
        long now = call(shared_code, 0);
        back += now < last;
        last = now;
    }
    pthread_join(thread, NULL);
    printf("another thread %ld, %ld times back\n", last, back);
}

static void mappings(void) {
    char name[] = "/tmp/smc-XXXXXX";
    int file = mkstemp(name);
    unsigned char image[PAGE] = {0};
    emit(image, 1);
    if (write(file, image, PAGE) != PAGE) return;
    int reader = open(name, O_RDONLY);
    // Private changes are thrown away.
    unsigned char *p = mmap(NULL, PAGE, RWX, MAP_PRIVATE, reader, 0);
    long a = call(p, 0);
    emit(p, 2);
    long b = call(p, 0);
    madvise(p, PAGE, MADV_DONTNEED);
    printf("MADV_DONTNEED %ld %ld %ld\n", a, b, call(p, 0));
    // Moved; something else comes in its place.
    unsigned char *q = pages(1, PROT_READ);
    emit(p, 3);
    a = call(p, 0);
    if (mremap(p, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, q) != q) { perror("mremap"); return; }
    b = call(q, 0);
    mmap(p, PAGE, RWX, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    emit(p, 4);
    printf("mremap %ld %ld %ld\n", a, b, call(p, 0));
    // The file changes under a shared and a private mapping.
    unsigned char *shared = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, reader, 0);
    unsigned char *private = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, reader, 0);
    printf("file %ld %ld", call(shared, 0), call(private, 0));
    int writer = open(name, O_RDWR);
    for (int i = 5; i < 8; i++) {
        emit(image, i);
        if (pwrite(writer, image, PAGE, 0) != PAGE) return;
        printf(", %ld %ld", call(shared, 0), call(private, 0));
    }
    puts("");
    unlink(name);
}

// A call at the end of a page, back to one that changes in other ways: it is written through another mapping, and cannot be executed at times.
static sigjmp_buf env;
static void no_code(int s, siginfo_t *i, void *c) { (void)s; (void)c; siglongjmp(env, 1 + ((uintptr_t)i->si_addr % PAGE == 0)); }

static void edges(void) {
    unsigned char *p = pages(2, RWX);
    int fd = memfd_create("code", 0);
    if (ftruncate(fd, PAGE)) return;
    unsigned char *w = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mmap(p + PAGE, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0) != p + PAGE) return;
    emit(p + 64, 1000);
    unsigned char *at = p + PAGE - 9;
    int distance = (int)(p + 64 - (p + PAGE));
    memcpy(at, "\x48\x83\xec\x08\xe8", 5);              // sub rsp, 8; call p + 64
    memcpy(at + 5, &distance, 4);
    memcpy(w, "\x48\x83\xc4\x08\x05\0\0\0\0\xc3", 10);      // add rsp, 8; add eax, constant; ret
    struct sigaction action = {.sa_sigaction = no_code, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    long sum = 0, faults = 0;
    for (int i = 0; i < 300; i++) {
        memcpy(w + 5, &i, 4);
        if (i % 10 == 5) mprotect(p + PAGE, PAGE, PROT_READ);
        int fault = sigsetjmp(env, 1);
        if (fault) faults += fault - 1;
        else sum += call(at, 1);
        if (i % 10 == 5) mprotect(p + PAGE, PAGE, PROT_READ | PROT_EXEC);
    }
    printf("edges %ld, faults %ld\n", sum, faults);
}

int main(void) {
    edges();
    next_instruction();
    own_loop();
    mixed();
    appended();
    flags();
    double_mapping();
    shared_with_a_child();
    by_the_kernel();
    by_another_thread();
    mappings();
    return 0;
}
