// Code that has run for long changes in each way there is, again and again, and the next call must see it: new mappings in its place, moves, pages given
// back, files and memory files written by this process and by another, other mappings of the same memory, the kernel, /proc/self/mem.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, ROUNDS = 6, CALLS = 4000 };
enum { RW = PROT_READ | PROT_WRITE, RX = PROT_READ | PROT_EXEC, RWX = RW | PROT_EXEC };
enum { ANONYMOUS = MAP_PRIVATE | MAP_ANONYMOUS };

// The page under test: where it is mapped, another mapping of it, the file behind it.
struct page { unsigned char *p, *other; int file; };

// nops, mov eax, constant of which not all bytes are alike, jmp over something, add eax, constant; ret
static void code(unsigned char *at, int value) {
    static const unsigned char text[] = {0x90, 0x90, 0x90, 0xb8, 0, 0, 0, 0, 0xeb, 1, 0xcc, 0x83, 0xc0, 0, 0xc3};
    unsigned char fresh[sizeof text];
    int most = value - (value & 63);
    memcpy(fresh, text, sizeof text);
    memcpy(fresh + 4, &most, 4);
    fresh[13] = value & 63;
    memcpy(at, fresh, sizeof fresh);
}

static int call(const struct page *page) { return ((int (*)(void))page->p)(); }

static void *map(void *at, int prot, int flags, int file) {
    void *p = mmap(at, PAGE, prot, flags | (at ? MAP_FIXED : 0), file, 0);
    if (p == MAP_FAILED) { perror("mmap"); exit(1); }
    return p;
}

static int image(int file, int value) {
    unsigned char bytes[PAGE] = {0};
    code(bytes, value);
    return pwrite(file, bytes, PAGE, 0) == PAGE;
}

// ---- Where it is ----

static struct page anonymous(void) { return (struct page){map(NULL, RWX, ANONYMOUS, -1), NULL, -1}; }

static struct page of_file(int prot, int flags, int memory) {
    char name[] = "/tmp/changed-XXXXXX";
    int file = memory ? memfd_create("code", 0) : mkstemp(name);
    if (!memory) unlink(name);
    if (file < 0 || !image(file, 0)) { perror("file"); exit(1); }
    return (struct page){map(NULL, prot, flags, file), map(NULL, RW, MAP_SHARED, file), file};
}

static struct page private_file(void) { return of_file(RX, MAP_PRIVATE, 0); }
static struct page private_writable_file(void) { return of_file(RWX, MAP_PRIVATE, 0); }
static struct page shared_file(void) { return of_file(RX, MAP_SHARED, 0); }
static struct page memory_file(void) { return of_file(RX, MAP_SHARED, 1); }
static struct page writable_memory_file(void) { return of_file(RWX, MAP_SHARED, 1); }
static struct page with_a_child(void) { return (struct page){map(NULL, RWX, MAP_SHARED | MAP_ANONYMOUS, -1), NULL, -1}; }

// ---- How it changes ----

static int store(struct page *page, int value) { code(page->p, value); return 1; }
static int other_mapping(struct page *page, int value) { code(page->other, value); return 1; }
static int file_written(struct page *page, int value) { return image(page->file, value); }

static int unmapped(struct page *page, int value) {
    munmap(page->p, PAGE);
    map(page->p, RWX, ANONYMOUS, -1);
    return store(page, value);
}

static int mapped_over(struct page *page, int value) {
    map(page->p, RW, ANONYMOUS, -1);
    code(page->p, value);
    return mprotect(page->p, PAGE, RX) == 0;
}

static int moved_in(struct page *page, int value) {
    unsigned char *from = map(NULL, RWX, ANONYMOUS, -1);
    code(from, value);
    // It has run there, too.
    return call(&(struct page){from}) == value && mremap(from, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, page->p) == page->p;
}

static int moved_away(struct page *page, int value) {
    unsigned char *to = map(NULL, RW, ANONYMOUS, -1);
    int before = call(page);
    if (mremap(page->p, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to || call(&(struct page){to}) != before) return 0;
    munmap(to, PAGE);
    map(page->p, RWX, ANONYMOUS, -1);
    return store(page, value);
}

// A private change is thrown away, and the file's own text is there again.
static int given_back(struct page *page, int value) {
    code(page->p, value + 1);
    if (call(page) != value + 1 || !image(page->file, value)) return 0;
    return madvise(page->p, PAGE, MADV_DONTNEED) == 0;
}

static int zeroed(struct page *page, int value) {
    if (madvise(page->p, PAGE, MADV_DONTNEED) || page->p[3]) return 0;
    return store(page, value);
}

static int received(struct page *page, int value) {
    unsigned char fresh[16];
    int ends[2];
    code(fresh, value);
    if (value & 1 ? socketpair(AF_UNIX, SOCK_STREAM, 0, ends) : pipe(ends)) return 0;
    int done = write(ends[1], fresh, 15) == 15 && (value & 1 ? recv(ends[0], page->p, 15, 0) : read(ends[0], page->p, 15)) == 15;
    close(ends[0]);
    close(ends[1]);
    return done;
}

static int own_memory(struct page *page, int value) {
    unsigned char fresh[16], now[16] = {0};
    code(fresh, value);
    int mem = open("/proc/self/mem", O_RDWR);
    off_t at = (off_t)(uintptr_t)page->p;
    // An emulator below us may have its memory elsewhere.
    int there = pread(mem, now, 15, at) == 15 && !memcmp(now, page->p, 15);
    if (there ? pwrite(mem, fresh, 15, at) != 15 : !mprotect(page->p, PAGE, RWX) && !store(page, value)) return 0;
    return close(mem) == 0;
}

// In another process, by `how`.
static int elsewhere(struct page *page, int value, int (*how)(struct page *, int)) {
    int status;
    pid_t child = fork();
    if (child == 0) _exit(!how(page, value));
    return waitpid(child, &status, 0) == child && status == 0;
}

static int other_store(struct page *page, int value) { return elsewhere(page, value, store); }
static int others_mapping(struct page *page, int value) { return elsewhere(page, value, other_mapping); }
static int others_write(struct page *page, int value) { return elsewhere(page, value, file_written); }

static const struct way { const char *name; struct page (*make)(void); int (*change)(struct page *, int); } ways[] = {
    {"store", anonymous, store},
    {"munmap and mmap", anonymous, unmapped},
    {"mmap over it", anonymous, mapped_over},
    {"mremap to it", anonymous, moved_in},
    {"mremap from it", anonymous, moved_away},
    {"MADV_DONTNEED, of a file", private_writable_file, given_back},
    {"MADV_DONTNEED", anonymous, zeroed},
    {"read and recv", anonymous, received},
    {"private file", private_file, file_written},
    {"shared file", shared_file, file_written},
    {"shared file, mapped twice", shared_file, other_mapping},
    {"shared file, by another process", shared_file, others_write},
    {"memory file, mapped twice", memory_file, other_mapping},
    {"memory file, its own store", writable_memory_file, store},
    {"memory file, by another process", memory_file, others_mapping},
    {"memory file, write", memory_file, file_written},
    {"anonymous, by another process", with_a_child, other_store},
    {"/proc/self/mem", anonymous, own_memory},
    {"/proc/self/mem, not writable", private_file, own_memory},
    {"store, after all of that", anonymous, store},
};

int main(void) {
    for (const struct way *way = ways; way < ways + sizeof ways / sizeof *ways; way++) {
        struct page page = way->make();
        long failed = 0, late = 0, wrong = 0;
        if (page.file < 0) store(&page, 0);
        for (int round = 0; round < ROUNDS; round++) {
            int before = call(&page), value = (round + 1) * 1001;
            for (int i = 0; i < CALLS; i++) wrong += call(&page) != before;
            failed += !way->change(&page, value);
            late += call(&page) != value;
        }
        printf("%s: %ld failed, %ld late, %ld wrong\n", way->name, failed, late, wrong);
        fflush(stdout);
    }
    return 0;
}
