// io_uring with raw system calls: the rings, what entries name, code that completions write, and what waits.
// links: dynamic static
// needs: io_uring
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

// linux/io_uring.h, as far as used here; that of the machine may be old.
struct params {
    uint32_t sq_entries, cq_entries, flags, cpu, idle, features, wq_fd, resv[3];
    struct { uint32_t head, tail, mask, entries, flags, dropped, array, resv; uint64_t addr; } sq;
    struct { uint32_t head, tail, mask, entries, overflow, cqes, flags, resv; uint64_t addr; } cq;
};
struct sqe {
    uint8_t op, flags;
    uint16_t prio;
    int32_t fd;
    uint64_t off, addr;
    uint32_t len, op_flags;
    uint64_t data;
    uint16_t buf, personality;
    uint32_t index;
    uint64_t addr3, pad;
};
struct cqe { uint64_t data; int32_t res; uint32_t flags; };
struct extra { uint64_t mask; uint32_t mask_size, min_wait; uint64_t limit; };
enum { NOP, READV, WRITEV, FSYNC, READ_FIXED, WRITE_FIXED, POLL_ADD, RECVMSG = 10, TIMEOUT, ACCEPT = 13, CANCEL, LINK_TIMEOUT, CONNECT,
       OPENAT = 18, CLOSE, FILES_UPDATE, STATX, READ, WRITE, MADVISE = 25, SEND, RECV, OPENAT2, EPOLL_CTL, SPLICE, PROVIDE = 31,
       RENAMEAT = 35, UNLINKAT, MKDIRAT, URING_CMD = 46 };
enum { FIXED_FILE = 1, LINK = 4, ASYNC = 16, SELECT = 32 };

struct ring {
    int fd;
    struct params p;
    char *sq, *cq;
    struct sqe *sqes;
    uint32_t tail;
};

static int setup(unsigned entries, struct params *p) { return syscall(425, entries, p); }
static int enter(struct ring *r, unsigned n, unsigned least) { return syscall(426, r->fd, n, least, least ? 1 : 0, NULL, 8); }
static int reg(struct ring *r, unsigned op, void *arg, unsigned n) { return syscall(427, r->fd, op, arg, n); }

static void open_ring(struct ring *r, unsigned entries) {
    memset(r, 0, sizeof *r);
    r->fd = setup(entries, &r->p);
    if (r->fd < 0) { printf("setup: %s\n", strerror(errno)); exit(1); }
    // As before IORING_FEAT_SINGLE_MMAP: two mappings of what is one.
    r->sq = mmap(0, r->p.sq.array + 4 * r->p.sq_entries, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, 0);
    r->cq = mmap(0, r->p.cq.cqes + 16 * r->p.cq_entries, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, 0x8000000);
    r->sqes = mmap(0, sizeof(struct sqe) * r->p.sq_entries, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, 0x10000000);
    if (r->sq == MAP_FAILED || r->cq == MAP_FAILED || r->sqes == MAP_FAILED) { printf("mmap: %s\n", strerror(errno)); exit(1); }
}

static void close_ring(struct ring *r) {
    munmap(r->sq, r->p.sq.array + 4 * r->p.sq_entries);
    munmap(r->cq, r->p.cq.cqes + 16 * r->p.cq_entries);
    munmap(r->sqes, sizeof(struct sqe) * r->p.sq_entries);
    close(r->fd);
}

// The next entry; it counts with the next `publish`.
static struct sqe *next(struct ring *r, int op, int fd, const void *addr, unsigned len, uint64_t off) {
    unsigned slot = r->tail & (r->p.sq_entries - 1);
    unsigned index = r->p.sq_entries - 1 - slot; // not in order
    struct sqe *s = &r->sqes[index];
    memset(s, 0, sizeof *s);
    s->op = op, s->fd = fd, s->addr = (uintptr_t)addr, s->len = len, s->off = off, s->data = r->tail;
    ((uint32_t *)(r->sq + r->p.sq.array))[slot] = index;
    r->tail++;
    return s;
}

static void publish(struct ring *r) { __atomic_store_n((uint32_t *)(r->sq + r->p.sq.tail), r->tail, __ATOMIC_RELEASE); }

static int submit(struct ring *r, unsigned n) { publish(r); return enter(r, n, 0); }

// The result of the next completion, waited for.
static struct cqe reap(struct ring *r) {
    uint32_t *head = (uint32_t *)(r->cq + r->p.cq.head), *tail = (uint32_t *)(r->cq + r->p.cq.tail);
    while (*head == __atomic_load_n(tail, __ATOMIC_ACQUIRE))
        if (enter(r, 0, 1) < 0 && errno != EINTR) { printf("wait: %s\n", strerror(errno)); exit(1); }
    struct cqe c = ((struct cqe *)(r->cq + r->p.cq.cqes))[*head & (r->p.cq_entries - 1)];
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return c;
}

// Submits what `next` has made last, and waits for it.
static int once(struct ring *r) {
    int n = submit(r, 1);
    if (n != 1) { printf("submitted %d: %s\n", n, strerror(errno)); exit(1); }
    return reap(r).res;
}

static const char *name(int res) { return res < 0 ? strerrorname_np(-res) : "ok"; }

static int temporary(void) {
    char path[] = "/tmp/uringXXXXXX";
    int fd = mkstemp(path);
    unlink(path);
    return fd;
}

static void basics(struct ring *r) {
    for (int i = 0; i < 5; i++) next(r, NOP, -1, 0, 0, 0);
    int n = submit(r, 5), order = 1;
    for (int i = 0; i < 5; i++) order &= reap(r).data == (uint64_t)i;
    printf("nops %d in order %d\n", n, order);
    // More than there are.
    next(r, NOP, -1, 0, 0, 0);
    publish(r);
    n = enter(r, 7, 1);
    reap(r);
    printf("of seven %d\n", n);
    // An entry is the program's again when it is submitted, and as it was.
    struct sqe *s = next(r, NOP, -1, 0, 0, 0);
    struct sqe copy = *s;
    once(r);
    printf("as it was %d\n", !memcmp(s, &copy, sizeof copy));
    char c;
    next(r, READ, 9999, &c, 1, 0);
    printf("no descriptor %s\n", name(once(r)));
    int zero = open("/dev/zero", O_RDONLY);
    next(r, READ, zero, (void *)0xffff888000000000, 1, 0);
    printf("no address %s\n", name(once(r)));
    next(r, READ, zero, (void *)8, 1, 0);
    printf("no memory %s\n", name(once(r)));
    next(r, 200, zero, 0, 0, 0);
    printf("no operation %s\n", name(once(r)));
    next(r, READ, 9999, &c, 1, 0)->flags = LINK;
    next(r, NOP, -1, 0, 0, 0);
    submit(r, 2);
    int a = reap(r).res, b = reap(r).res;
    printf("link %s %s\n", name(a), name(b));
    close(zero);
    uint32_t large[2] = {0};
    printf("registers nothing %s\n", reg(r, 2, large, 0) < 0 ? "no" : "yes");
    printf("not a ring %s\n", syscall(426, 0, 1, 0, 0, 0, 0) < 0 ? strerrorname_np(errno) : "?");
    printf("unknown flag %s\n", syscall(426, r->fd, 0, 0, 1u << 30, 0, 0) < 0 ? strerrorname_np(errno) : "?");
    struct { uint8_t last, n; uint16_t r; uint32_t rr[3]; struct { uint8_t op, r; uint16_t flags; uint32_t rr; } op[64]; } probe = {0};
    int probed = reg(r, 8, &probe, 64);
    printf("probe %d read %d epoll_ctl %d\n", probed, probe.op[READ].flags, probe.op[EPOLL_CTL].flags);
    // A thread of the kernel's may be refused; if it is there, it works.
    struct params p = {.flags = 2, .idle = 10};
    int polled = setup(4, &p);
    printf("kernel thread %s\n", polled >= 0 || errno == EPERM ? "or not" : strerror(errno));
    if (polled >= 0) close(polled);
}

static void files(struct ring *r) {
    char dir[] = "/tmp/uringdXXXXXX";
    mkdtemp(dir);
    int d = open(dir, O_RDONLY | O_DIRECTORY);
    next(r, MKDIRAT, d, "sub", 0755, 0);
    printf("mkdirat %s", name(once(r)));
    next(r, OPENAT, d, "sub", 0, 0)->op_flags = O_RDONLY | O_DIRECTORY;
    int sub = once(r);
    printf(" openat directory %s", name(sub));
    next(r, OPENAT, sub, "file", 0644, 0)->op_flags = O_RDWR | O_CREAT | O_EXCL;
    int file = once(r);
    printf(" file %s", name(file));
    next(r, OPENAT, sub, "file", 0, 0)->op_flags = O_RDONLY | O_DIRECTORY;
    printf(" as directory %s\n", name(once(r)));
    struct iovec out[2] = {{"hello ", 6}, {"world", 5}};
    next(r, WRITEV, file, out, 2, 0);
    printf("writev %d", once(r));
    char b[32] = {0}, c[8] = {0};
    struct iovec in[2] = {{b, 3}, {c, 4}};
    next(r, READV, file, in, 2, 0);
    int n = once(r);
    printf(" readv %d %s|%s", n, b, c);
    struct statx st;
    next(r, STATX, sub, "file", STATX_SIZE, (uintptr_t)&st);
    n = once(r);
    printf(" statx %s %d\n", name(n), (int)st.stx_size);
    // A directory whose links are threads: as many as the call counts.
    struct statx same;
    next(r, STATX, AT_FDCWD, "/proc/self/task", STATX_NLINK, (uintptr_t)&st);
    printf("threads %s", name(once(r)));
    printf(" %s\n", !statx(AT_FDCWD, "/proc/self/task", 0, STATX_NLINK, &same) && same.stx_nlink == st.stx_nlink ? "counted alike" : "not");
    symlink("file", "/tmp/uring-link");
    uint64_t how[3] = {O_RDONLY | O_NOFOLLOW, 0, 0};
    next(r, OPENAT2, AT_FDCWD, "/tmp/uring-link", sizeof how, (uintptr_t)how);
    printf("openat2 %s", name(once(r)));
    unlink("/tmp/uring-link");
    next(r, RENAMEAT, sub, "file", sub, (uintptr_t)"other");
    printf(" renameat %s", name(once(r)));
    next(r, UNLINKAT, sub, "other", 0, 0);
    printf(" unlinkat %s", name(once(r)));
    next(r, CLOSE, sub, 0, 0, 0);
    printf(" close %s", name(once(r)));
    printf(" gone %d\n", fcntl(sub, F_GETFD));
    close(file);
    next(r, OPENAT, AT_FDCWD, "/proc/self/exe", 0, 0)->op_flags = O_RDONLY;
    int exe = once(r);
    unsigned char elf[20] = {0};
    next(r, READ, exe, elf, sizeof elf, 0);
    n = once(r);
    printf("own program %d machine %d\n", n, elf[18]);
    close(exe);
    unlinkat(d, "sub", AT_REMOVEDIR);
    rmdir(dir);
    close(d);
}

static void events(struct ring *r) {
    int ep = epoll_create1(0), ev = eventfd(0, 0);
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = 0x1122334455667788}, got = {0};
    next(r, EPOLL_CTL, ep, &e, EPOLL_CTL_ADD, ev);
    printf("epoll_ctl %s", name(once(r)));
    memset(&e, 0, sizeof e);
    eventfd_write(ev, 1);
    int n = epoll_wait(ep, &got, 1, 1000);
    printf(" %d %llx", n, (unsigned long long)got.data.u64);
    next(r, EPOLL_CTL, ep, 0, EPOLL_CTL_DEL, ev);
    printf(" %s\n", name(once(r)));
    next(r, POLL_ADD, ev, 0, 0, 0)->op_flags = POLLIN;
    printf("poll %x", once(r));
    int64_t soon[2] = {0, 1000000};
    next(r, TIMEOUT, -1, soon, 1, 0);
    printf(" timeout %s", name(once(r)));
    int p[2];
    pipe(p);
    char c;
    next(r, READ, p[0], &c, 1, -1)->flags = LINK;
    next(r, LINK_TIMEOUT, -1, soon, 1, 0);
    submit(r, 2);
    struct cqe a = reap(r), b = reap(r);
    if (a.data > b.data) { struct cqe t = a; a = b; b = t; }
    printf(" read with timeout %s %s", name(a.res), name(b.res));
    struct sqe *s = next(r, READ, p[0], &c, 1, -1);
    s->data = 4711;
    submit(r, 1);
    next(r, CANCEL, -1, (void *)4711, 0, 0);
    submit(r, 1);
    a = reap(r), b = reap(r);
    if (a.data != 4711) { struct cqe t = a; a = b; b = t; }
    printf(" cancelled %s %s\n", name(a.res), name(b.res));
    close(ep), close(ev), close(p[0]), close(p[1]);
}

// A function that returns n.
static void write_code(unsigned char *at, unsigned n) { at[0] = 0xb8; memcpy(at + 1, &n, 4); at[5] = 0xc3; }
static int call(void *code) { return ((int (*)(void))code)(); }

// Receives new code through a buffer of `group` at `page`, which is run while the kernel waits to write to it; how often anything was wrong.
static int received_late(struct ring *r, int s[2], int group, unsigned char *page, int i) {
    unsigned char text[6];
    struct sqe *q = next(r, RECV, s[0], 0, 6, 0);
    q->flags = SELECT, q->buf = group;
    submit(r, 1);
    int wrong = call(page) != i - 1;
    write_code(text, i);
    send(s[1], text, 6, 0);
    wrong += reap(r).res != 6;
    return wrong + (call(page) != i);
}

static void code(struct ring *r) {
    unsigned char *page = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), text[6];
    int file = temporary(), wrong = 0, s[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    write_code(page, 0);
    wrong += call(page) != 0;
    // Read at once.
    for (int i = 1; i <= 40; i++) {
        write_code(text, i);
        pwrite(file, text, 6, 0);
        struct iovec v = {page, 6};
        if (i & 1) next(r, READ, file, page, 6, 0); else next(r, READV, file, &v, 1, 0);
        wrong += once(r) != 6;
        wrong += call(page) != i;
    }
    printf("code read %d wrong\n", wrong);
    // Received later: the page is run while the kernel waits to write to it.
    unsigned char *second = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    write_code(second, 7);
    wrong = call(second) != 7;
    for (int i = 1; i <= 40; i++) {
        struct iovec v = {second, 6};
        struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
        if (i & 1) next(r, RECV, s[0], second, 6, 0); else next(r, RECVMSG, s[0], &m, 1, 0);
        submit(r, 1);
        for (int k = 0; k < 3; k++) wrong += call(second) != (i == 1 ? 7 : 100 + i - 1);
        write_code(text, 100 + i);
        send(s[1], text, 6, 0);
        wrong += reap(r).res != 6;
        wrong += call(second) != 100 + i;
    }
    printf("code received %d wrong\n", wrong);
    // Into registered memory.
    unsigned char *third = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    write_code(third, 1);
    wrong = call(third) != 1;
    struct iovec v = {third, 4096};
    wrong += reg(r, 0, &v, 1) != 0;
    wrong += call(third) != 1;
    for (int i = 2; i < 30; i++) {
        write_code(text, i);
        pwrite(file, text, 6, 0);
        next(r, READ_FIXED, file, third, 6, 0);
        wrong += once(r) != 6;
        wrong += call(third) != i;
    }
    reg(r, 1, 0, 0);
    printf("code in registered memory %d wrong\n", wrong);
    // Into provided memory.
    unsigned char *fourth = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    write_code(fourth, 1);
    wrong = call(fourth) != 1;
    for (int i = 2; i < 30; i++) {
        next(r, PROVIDE, 1, fourth, 64, 0)->buf = 5;
        wrong += once(r) < 0;
        wrong += received_late(r, s, 5, fourth, i);
    }
    printf("code in provided memory %d wrong\n", wrong);
    // A ring of buffers, to which they are added without a word.
    unsigned char *fifth = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct { uint64_t addr; uint32_t len; uint16_t id, tail; } *buffers = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct { uint64_t addr; uint32_t entries; uint16_t group, flags; uint64_t resv[3]; } br = {(uintptr_t)buffers, 8, 6, 0, {0}};
    write_code(fifth, 1);
    wrong = call(fifth) != 1;
    wrong += reg(r, 22, &br, 1) != 0;
    for (int i = 2; i < 30; i++) {
        unsigned slot = (i - 2) & 7;
        buffers[slot].addr = (uintptr_t)fifth, buffers[slot].len = 64, buffers[slot].id = 1;
        __atomic_store_n(&buffers[0].tail, i - 1, __ATOMIC_RELEASE);
        wrong += received_late(r, s, 6, fifth, i);
    }
    reg(r, 23, &br, 1);
    printf("code in a ring of buffers %d wrong\n", wrong);
    // Memory that loses what was written to it.
    write_code(text, 77);
    pwrite(file, text, 6, 0);
    ftruncate(file, 4096);
    unsigned char *sixth = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE, file, 0);
    write_code(sixth, 78);
    wrong = call(sixth) != 78;
    next(r, MADVISE, -1, sixth, 4096, 0)->op_flags = MADV_DONTNEED;
    wrong += once(r) != 0;
    wrong += call(sixth) != 77;
    printf("code given up %d wrong\n", wrong);
    // Code of a file that is opened for writing and written.
    char path[] = "/tmp/uringcXXXXXX";
    close(mkstemp(path));
    int out = open(path, O_WRONLY);
    write_code(text, 5);
    write(out, text, 6);
    ftruncate(out, 4096);
    close(out);
    int in = open(path, O_RDONLY);
    unsigned char *mapped = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, in, 0);
    wrong = call(mapped) != 5;
    next(r, OPENAT, AT_FDCWD, path, 0, 0)->op_flags = O_RDWR;
    out = once(r);
    write_code(text, 6);
    next(r, WRITE, out, text, 6, 0);
    wrong += once(r) != 6;
    wrong += call(mapped) != 6;
    printf("code of a file %d wrong\n", wrong);
    unlink(path);
    close(in), close(out), close(file), close(s[0]), close(s[1]);
}

static void sockets(struct ring *r) {
    struct { sa_family_t family; char path[40]; } a = {AF_UNIX, "\0uring-test"};
    sprintf(a.path + 1, "uring-test-%d", (int)getpid());
    socklen_t len = sizeof a;
    int l = socket(AF_UNIX, SOCK_STREAM, 0), c = socket(AF_UNIX, SOCK_STREAM, 0);
    bind(l, (void *)&a, len);
    listen(l, 1);
    char peer[128];
    socklen_t size = sizeof peer;
    next(r, ACCEPT, l, peer, 0, (uintptr_t)&size);
    submit(r, 1);
    struct sqe *s = next(r, CONNECT, c, &a, 0, len);
    s->data = 1000;
    submit(r, 1);
    struct cqe x = reap(r), y = reap(r);
    if (x.data == 1000) { struct cqe t = x; x = y; y = t; }
    printf("accept %s connect %s", name(x.res), name(y.res));
    next(r, SEND, c, "ping", 4, 0);
    printf(" send %d", once(r));
    char b[8] = {0};
    next(r, RECV, x.res, b, 8, 0);
    int n = once(r);
    printf(" recv %d %s\n", n, b);
    int p[2];
    pipe(p);
    send(c, "pong", 4, 0);
    s = next(r, SPLICE, p[1], (void *)-1, 4, -1);
    s->index = x.res;
    printf("splice %d", once(r));
    memset(b, 0, 8);
    read(p[0], b, 8);
    // By a registered file.
    int fds[2] = {-1, p[1]};
    printf(" %s register %s", b, name(reg(r, 2, fds, 2)));
    s = next(r, WRITE, 1, "fixed", 5, -1);
    s->flags = FIXED_FILE;
    n = once(r);
    memset(b, 0, 8);
    read(p[0], b, 8);
    printf(" write %d %s\n", n, b);
    reg(r, 3, 0, 0);
    close(x.res), close(l), close(c), close(p[0]), close(p[1]);
}

static volatile sig_atomic_t alarms;
static void on_alarm(int s) { (void)s; alarms++; }

static void waits(struct ring *r) {
    for (int flags = 0; flags <= SA_RESTART; flags += SA_RESTART) {
        sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_alarm, .sa_flags = flags}, 0);
        alarms = 0;
        ualarm(30000, 0);
        int n = enter(r, 0, 1);
        printf("signal %s %d ", n < 0 ? strerrorname_np(errno) : "?", alarms);
    }
    // A mask for the wait alone.
    sigset_t all, none, old;
    sigemptyset(&none), sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &old);
    alarms = 0;
    raise(SIGALRM);
    int n = syscall(426, r->fd, 0, 1, 1, &none, 8);
    sigset_t now;
    sigprocmask(SIG_SETMASK, 0, &now);
    printf("masked %s %d still %d", n < 0 ? strerrorname_np(errno) : "?", alarms, sigismember(&now, SIGALRM));
    raise(SIGALRM);
    struct { int64_t s, ns; } limit = {0, 1000000};
    struct extra e = {(uintptr_t)&none, 8, 0, (uintptr_t)&limit};
    n = syscall(426, r->fd, 0, 1, 9, &e, sizeof e);
    printf(" %s %d", n < 0 ? strerrorname_np(errno) : "?", alarms);
    sigprocmask(SIG_SETMASK, &old, 0);
    n = syscall(426, r->fd, 0, 1, 9, &e, sizeof e);
    printf(" limit %s", n < 0 ? strerrorname_np(errno) : "?");
    // What was submitted is said, whatever the wait comes to.
    next(r, NOP, -1, 0, 0, 0);
    publish(r);
    n = syscall(426, r->fd, 1, 3, 9, &e, sizeof e);
    printf(" submitted %d", n);
    reap(r);
    printf("\n");
}

static struct ring shared_ring;
static pthread_mutex_t submitting = PTHREAD_MUTEX_INITIALIZER;
static int done;

static void *worker(void *arg) {
    (void)arg;
    struct ring own;
    open_ring(&own, 8);
    int p[2];
    pipe(p);
    long sum = 0;
    for (int i = 0; i < 300; i++) {
        char in = i, out = 0;
        next(&own, WRITE, p[1], &in, 1, -1);
        next(&own, READ, p[0], &out, 1, -1);
        submit(&own, 2);
        reap(&own), reap(&own);
        sum += out == in;
        pthread_mutex_lock(&submitting);
        next(&shared_ring, NOP, -1, 0, 0, 0);
        int n = submit(&shared_ring, 1);
        reap(&shared_ring);
        done += n;
        pthread_mutex_unlock(&submitting);
    }
    close_ring(&own);
    close(p[0]), close(p[1]);
    return (void *)sum;
}

// Two threads that both submit whatever is there.
static void *both(void *arg) {
    (void)arg;
    for (int i = 0; i < 2000; i++) {
        int n = enter(&shared_ring, 1, 0);
        if (n > 0) __atomic_fetch_add(&done, n, __ATOMIC_RELAXED);
    }
    return 0;
}

static void threads(void) {
    open_ring(&shared_ring, 16);
    pthread_t t[4];
    long sum = 0;
    for (int i = 0; i < 4; i++) pthread_create(&t[i], 0, worker, 0);
    for (int i = 0; i < 4; i++) { void *v; pthread_join(t[i], &v); sum += (long)v; }
    printf("threads %ld shared %d\n", sum, done);
    done = 0;
    for (int i = 0; i < 2; i++) pthread_create(&t[i], 0, both, 0);
    int made = 0, reaped = 0;
    uint32_t *head = (uint32_t *)(shared_ring.cq + shared_ring.p.cq.head), *tail = (uint32_t *)(shared_ring.cq + shared_ring.p.cq.tail);
    uint32_t *sq_head = (uint32_t *)(shared_ring.sq + shared_ring.p.sq.head);
    int wrong = 0, expected = (int)shared_ring.tail;
    for (int i = 0; i < 5000; i++) {
        if (shared_ring.tail - __atomic_load_n(sq_head, __ATOMIC_ACQUIRE) < 8) next(&shared_ring, NOP, -1, 0, 0, 0), publish(&shared_ring), made++;
        while (*head != __atomic_load_n(tail, __ATOMIC_ACQUIRE)) {
            struct cqe *c = &((struct cqe *)(shared_ring.cq + shared_ring.p.cq.cqes))[*head & (shared_ring.p.cq_entries - 1)];
            wrong += c->data != (uint64_t)expected++ || c->res;
            __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
            reaped++;
        }
    }
    for (int i = 0; i < 2; i++) pthread_join(t[i], 0);
    while (shared_ring.tail != __atomic_load_n(sq_head, __ATOMIC_ACQUIRE)) done += enter(&shared_ring, 1, 0);
    for (; reaped < made; reaped++) wrong += reap(&shared_ring).data != (uint64_t)expected++;
    printf("racing: all submitted %d, %d wrong\n", done == made, wrong);
    close_ring(&shared_ring);
}

static void many(void) {
    int right = 0;
    for (int i = 0; i < 100; i++) {
        struct ring r;
        open_ring(&r, 1 << (i % 10));
        next(&r, NOP, -1, 0, 0, 0);
        right += once(&r) == 0;
        if (i % 3) close_ring(&r); else close(r.fd);
    }
    printf("rings %d\n", right);
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        struct ring r;
        open_ring(&r, 4);
        next(&r, NOP, -1, 0, 0, 0);
        _exit(once(&r) == 0 ? 42 : 1);
    }
    int st;
    waitpid(pid, &st, 0);
    printf("child %d\n", WEXITSTATUS(st));
}

int main(void) {
    struct ring r;
    open_ring(&r, 16);
    printf("entries %u completions %u\n", r.p.sq_entries, r.p.cq_entries);
    basics(&r);
    files(&r);
    events(&r);
    sockets(&r);
    code(&r);
    waits(&r);
    close_ring(&r);
    threads();
    many();
    return 0;
}
