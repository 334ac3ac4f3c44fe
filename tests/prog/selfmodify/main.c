// Code that is written, run, and written again: on the heap, through mprotect, mapped anew, and by the kernel.
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef int (*Function)(int);

static void emit(unsigned char *at, int constant) {
    unsigned char code[] = {0x8d, 0x87, 0, 0, 0, 0, 0xc3};    // lea eax, [rdi + constant]; ret
    memcpy(code + 2, &constant, 4);
    memcpy(at, code, sizeof code);
}

int main(void) {
    unsigned char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    long sum = 0;
    for (int i = 0; i < 300; i++) {
        emit(page, i);
        for (int k = 0; k < 20; k++) sum += ((Function)page)(k);
    }
    printf("rewritten %ld\n", sum);
    for (int i = 0; i < 200; i++) emit(page + 4096 + 16 * i, i);
    sum = 0;
    for (int k = 0; k < 50; k++) for (int i = 0; i < 200; i++) sum += ((Function)(page + 4096 + 16 * i))(k);
    printf("many %ld\n", sum);

    mprotect(page, 4096, PROT_READ | PROT_WRITE);
    emit(page, 1000);
    mprotect(page, 4096, PROT_READ | PROT_EXEC);
    printf("mprotect %d\n", ((Function)page)(1));
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
    emit(page, 2000);
    mprotect(page, 4096, PROT_READ | PROT_EXEC);
    printf("again %d\n", ((Function)page)(1));

    munmap(page, 8192);
    unsigned char *again = mmap(page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    emit(again, 5);
    printf("mapped anew %d\n", ((Function)again)(1));

    int fds[2];
    if (pipe(fds)) return 1;
    for (int i = 0; i < 3; i++) {
        unsigned char fresh[7];
        emit(fresh, 100 * i);
        if (write(fds[1], fresh, 7) != 7 || read(fds[0], again, 7) != 7) return 2;
        printf("read into code %d\n", ((Function)again)(7));
    }
    return 0;
}
