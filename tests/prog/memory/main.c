// Memory: malloc of all sizes, mmap placement and protection, mremap, madvise, holes, limits.
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void) {
    static char *blocks[500];
    uint64_t seed = 1, sum = 0;
    for (int i = 0; i < 20000; i++) {
        seed = seed * 6364136223846793005 + 1442695040888963407;
        int k = (seed >> 33) % 500;
        if (blocks[k]) { sum += (unsigned char)blocks[k][0]; free(blocks[k]); }
        size_t size = 1 + (seed >> 40) % (i % 50 == 0 ? 300000 : 3000);
        blocks[k] = malloc(size);
        memset(blocks[k], k, size < 64 ? size : 64);
        if (k % 7 == 0) blocks[k] = realloc(blocks[k], size * 2);
    }
    printf("malloc %lu\n", sum);
    char *p = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(p, 'a', 16384);
    printf("aligned %d\n", ((uintptr_t)p & 4095) == 0);
    munmap(p + 4096, 4096);
    unsigned char in_core[4];
    printf("hole %d\n", mincore(p + 4096, 4096, in_core) == -1 && errno == ENOMEM);
    char *q = mmap(p + 4096, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    printf("filled %d %d %c\n", q == p + 4096, q[0], p[8192]);
    char *grown = mremap(p, 16384, 1 << 20, MREMAP_MAYMOVE);
    printf("mremap %d %c %d\n", grown != MAP_FAILED, grown[0], grown[(1 << 20) - 1]);
    char *shrunk = mremap(grown, 1 << 20, 4096, 0);
    printf("shrunk %d\n", shrunk == grown);
    madvise(shrunk, 4096, MADV_DONTNEED);
    printf("dontneed %d\n", shrunk[0]);
    char *low = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    printf("32bit %d\n", (uintptr_t)low < 1ul << 31);
    char *hint = mmap((void *)0x123456789000, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    printf("hint %d\n", hint == (void *)0x123456789000);
    void *again = mmap(hint, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    printf("noreplace %d\n", again == MAP_FAILED && errno == EEXIST);
    printf("kernel half %d\n", mmap((void *)0xffff800000000000, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED);
    printf("odd %d %d\n", munmap((void *)1, 4096) == -1 && errno == EINVAL, syscall(SYS_mprotect, p + 1, 1, PROT_READ) == -1 && errno == EINVAL);
    char *big = mmap(NULL, 1ul << 36, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    printf("reserved %d\n", big != MAP_FAILED && mprotect(big + (1ul << 35), 4096, PROT_READ | PROT_WRITE) == 0);
    big[1ul << 35] = 1;
    munmap(big, 1ul << 36);
    char *aligned = aligned_alloc(1 << 16, 1 << 16);
    printf("aligned_alloc %d\n", ((uintptr_t)aligned & 65535) == 0);
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512]; int stack = 0, heap = 0;
    while (fgets(line, sizeof line, maps)) { stack += strstr(line, "[stack]") != NULL; heap += strstr(line, "[heap]") != NULL; }
    printf("maps %d %d\n", stack, heap);
    void *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int fd = memfd_create("x", 0);
    ftruncate(fd, 4096);
    char *one = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), *two = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    one[9] = 99;
    printf("two views %d %d\n", two[9], shared != MAP_FAILED);
    return 0;
}
