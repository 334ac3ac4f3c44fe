// Page faults that the program serves itself: missing pages read, written, executed, across page edges, by atomic operations and strings; write
// protection; SIGBUS in place of messages; signals, forks and the end of the process while a thread waits for its page.
// links: dynamic static
// needs: userfaultfd
#define _GNU_SOURCE
#include <emmintrin.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

enum { PAGE = 4096 };

static int open_userfault(uint64_t features) {
    int fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    if (fd < 0) { printf("userfaultfd: %s\n", strerror(errno)); exit(1); }
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    if (ioctl(fd, UFFDIO_API, &api)) { printf("UFFDIO_API: %s\n", strerror(errno)); exit(1); }
    return fd;
}

static volatile char *watch(int fd, int pages, int prot, int mode) {
    volatile char *memory = mmap(NULL, pages * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register r = {.range = {(uintptr_t)memory, pages * PAGE}, .mode = mode};
    if (ioctl(fd, UFFDIO_REGISTER, &r)) printf("UFFDIO_REGISTER: %s\n", strerror(errno));
    return memory;
}

// What a page gets: this, or for executable memory its part of a function that lies across the edge of two pages.
static char contents[PAGE], *code_at;
static atomic_int faults, writes, protected, slow;

static void serve(int fd, struct uffd_msg *m) {
    uint64_t page = m->arg.pagefault.address & ~(PAGE - 1ull);
    faults++;
    if (m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) {
        protected++;
        struct uffdio_writeprotect w = {.range = {page, PAGE}};
        ioctl(fd, UFFDIO_WRITEPROTECT, &w);
        return;
    }
    if (m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE) writes++;
    static char with[PAGE];
    memcpy(with, contents, PAGE);
    if (page == (uintptr_t)code_at || page == (uintptr_t)code_at + PAGE) {
        // mov eax, 0x12345678, whose last two bytes are in the second page; ret
        static const unsigned char function[] = {0xb8, 0x78, 0x56, 0x34, 0x12, 0xc3};
        for (unsigned i = 0; i < sizeof function; i++) {
            uint64_t at = (uintptr_t)code_at + PAGE - 3 + i;
            if ((at & ~(PAGE - 1ull)) == page) with[at % PAGE] = function[i];
        }
    }
    if (slow) usleep(20000);
    struct uffdio_copy copy = {.dst = page, .src = (uintptr_t)with, .len = PAGE};
    if (ioctl(fd, UFFDIO_COPY, &copy) && errno != EEXIST) printf("UFFDIO_COPY: %s\n", strerror(errno));
}

static void *serves(void *arg) {
    struct uffd_msg m;
    while (read((int)(long)arg, &m, sizeof m) == sizeof m) {
        if (m.event == UFFD_EVENT_PAGEFAULT) serve((int)(long)arg, &m);
    }
    return NULL;
}

static void accesses(int fd) {
    enum { PAGES = 12 };
    volatile char *p = watch(fd, PAGES, PROT_READ | PROT_WRITE, UFFDIO_REGISTER_MODE_MISSING);
    faults = writes = 0;
    char got = p[5];
    printf("read %c, faults %d\n", got, faults);
    *(volatile uint64_t *)(p + 1 * PAGE + 8) = 7;
    printf("written, faults %d writes %d, beside it %c\n", faults, writes, p[1 * PAGE]);
    uint64_t old = __atomic_fetch_add((uint64_t *)(p + 2 * PAGE), 1, __ATOMIC_SEQ_CST);
    printf("added to %c, faults %d\n", (char)old, faults);
    __m128i v = _mm_loadu_si128((__m128i *)(p + 4 * PAGE - 8));
    printf("a vector across two, %x, faults %d\n", _mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('m'))), faults);
    static char copy[3 * PAGE];
    void *to = copy, *from = (void *)(p + 5 * PAGE - 100);
    size_t n = PAGE + 200;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    printf("copied %d, faults %d\n", copy[0] == 'm' && copy[100] == 'm' && copy[PAGE + 199] == 'm', faults);
    int ends[2];
    if (pipe(ends)) return;
    ssize_t sent = write(ends[1], (void *)(p + 8 * PAGE), 1);
    printf("the kernel itself: %s, faults %d\n", sent < 0 ? strerror(errno) : "written", faults);
    madvise((void *)p, PAGE, MADV_DONTNEED);
    got = p[5];
    printf("again %c, faults %d\n", got, faults);
    struct uffdio_range whole = {(uintptr_t)p, PAGES * PAGE};
    int unregistered = ioctl(fd, UFFDIO_UNREGISTER, &whole);
    printf("unregistered %d, %d, faults %d\n", unregistered, p[9 * PAGE], faults);
    struct uffdio_zeropage odd = {.range = {(uintptr_t)p + 1, PAGE}};
    printf("odd range: %s\n", ioctl(fd, UFFDIO_ZEROPAGE, &odd) ? strerror(errno) : "taken");
    struct uffdio_register beyond = {.range = {~0ull << 20, PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    printf("the kernel's range: %s\n", ioctl(fd, UFFDIO_REGISTER, &beyond) ? strerror(errno) : "taken");
}

static void code(int fd) {
    code_at = (char *)watch(fd, 2, PROT_READ | PROT_WRITE | PROT_EXEC, UFFDIO_REGISTER_MODE_MISSING);
    unsigned (*function)(void) = (unsigned (*)(void))(code_at + PAGE - 3);
    for (int i = 0; i < 3; i++) {
        faults = 0;
        unsigned first = function(), second = function();
        printf("code %x %x, faults %d\n", first, second, faults);
        madvise(code_at, 2 * PAGE, MADV_DONTNEED);
    }
}

static void protection(int fd) {
    volatile char *p = watch(fd, 2, PROT_READ | PROT_WRITE, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP);
    p[0] = 1;
    p[PAGE] = 2;
    struct uffdio_writeprotect w = {.range = {(uintptr_t)p, 2 * PAGE}, .mode = UFFDIO_WRITEPROTECT_MODE_WP};
    printf("protected %d", ioctl(fd, UFFDIO_WRITEPROTECT, &w));
    protected = 0;
    int sum = p[0] + p[PAGE];
    p[1] = 3;
    p[2] = 3;
    printf(", sum %d, messages %d\n", sum, protected);
}

static sigjmp_buf back;
static void *fault_at;
static int fault_code;
static void on_bus(int s, siginfo_t *info, void *u) {
    (void)s, (void)u;
    fault_at = info->si_addr;
    fault_code = info->si_code;
    siglongjmp(back, 1);
}

static void buses(void) {
    int fd = open_userfault(UFFD_FEATURE_SIGBUS);
    volatile char *p = watch(fd, 1, PROT_READ | PROT_WRITE, UFFDIO_REGISTER_MODE_MISSING);
    struct sigaction a = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &a, NULL);
    if (!sigsetjmp(back, 1)) printf("read %d\n", p[9]);
    else printf("SIGBUS, address %d code %d\n", fault_at == p + 9, fault_code == BUS_ADRERR);
    struct uffdio_zeropage zero = {.range = {(uintptr_t)p, PAGE}};
    int zeroed = ioctl(fd, UFFDIO_ZEROPAGE, &zero);
    printf("zeroed %d, %d\n", zeroed, p[9]);
    close(fd);
}

static volatile sig_atomic_t handled;
static void on_usr1(int s) { (void)s; handled = 1; }
static void *reads(void *arg) { return (void *)(long)*(volatile char *)arg; }

// A thread waits for its page, which the main thread serves, while that does what wants all other threads to be somewhere harmless.
static void while_one_waits(void) {
    int fd = open_userfault(0);
    volatile char *p = watch(fd, 2, PROT_READ | PROT_WRITE, UFFDIO_REGISTER_MODE_MISSING);
    pthread_t t;
    pthread_create(&t, NULL, reads, (void *)p);
    struct uffd_msg m;
    if (read(fd, &m, sizeof m) != sizeof m) return;
    signal(SIGUSR1, on_usr1);
    pthread_kill(t, SIGUSR1);
    unsigned char *fresh = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned sum = 0;
    for (int i = 0; i < 100; i++) {
        // mov eax, i; ret
        memcpy(fresh, (unsigned char[]){0xb8, i, 0, 0, 0, 0xc3}, 6);
        sum += ((unsigned (*)(void))fresh)();
    }
    pid_t pid = fork();
    if (pid == 0) _exit(p[PAGE] + 3);
    int status;
    waitpid(pid, &status, 0);
    printf("code made meanwhile %u, child %d\n", sum, WEXITSTATUS(status));
    serve(fd, &m);
    void *got;
    // A handler that has run in between faults again.
    fcntl(fd, F_SETFL, O_NONBLOCK);
    pthread_join(t, &got);
    while (!handled) usleep(1000);
    printf("read %c, handled %d\n", (char)(long)got, handled);
    fcntl(fd, F_SETFL, 0);
    pthread_create(&t, NULL, reads, (void *)(p + PAGE));
    if (read(fd, &m, sizeof m) == sizeof m) printf("ends while one waits\n");
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    memset(contents, 'm', PAGE);
    int fd = open_userfault(0);
    pthread_t t;
    pthread_create(&t, NULL, serves, (void *)(long)fd);
    accesses(fd);
    slow = 1;
    code(fd);
    slow = 0;
    protection(fd);
    buses();
    while_one_waits();
}
