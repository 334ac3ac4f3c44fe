// links: dynamic static
// What a program finds when it starts: arguments, environment, auxiliary vector, stack, brk.
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

static __thread int tls_value = 7;
static __thread char tls_zero[100];

int main(int argc, char **argv, char **envp) {
    printf("argc %d, %s, %s, end %d\n", argc, argv[1], argv[2], argv[argc] == NULL);
    printf("%s\n", getenv("GUEST_VARIABLE"));
    int found = 0;
    for (char **e = envp; *e; e++) found += strncmp(*e, "GUEST_VARIABLE=", 15) == 0;
    printf("in envp %d\n", found);
    printf("page %lu, clock %lu, phent %lu\n", getauxval(AT_PAGESZ), getauxval(AT_CLKTCK), getauxval(AT_PHENT));
    printf("random %d, secure %lu, uid %d\n", getauxval(AT_RANDOM) != 0, getauxval(AT_SECURE), getauxval(AT_UID) == getuid());
    printf("platform %s\n", (char *)getauxval(AT_PLATFORM));
    printf("execfn %d\n", strstr((char *)getauxval(AT_EXECFN), "start-") != NULL);
    Elf64_Phdr *ph = (Elf64_Phdr *)getauxval(AT_PHDR);
    int loads = 0;
    for (unsigned long i = 0; i < getauxval(AT_PHNUM); i++) loads += ph[i].p_type == PT_LOAD;
    printf("phdrs %d\n", loads > 0 && loads < 10);
    printf("stack aligned %d\n", ((uintptr_t)__builtin_frame_address(0) & 15) == 0);
    printf("tls %d %d\n", tls_value, tls_zero[99]);
    char *old = sbrk(0), *new = sbrk(65536);
    memset(new, 1, 65536);
    printf("brk %d\n", old == new && (char *)sbrk(0) == new + 65536);
    char name[64] = "";
    FILE *comm = fopen("/proc/self/comm", "r");
    printf("comm %d\n", comm && fgets(name, sizeof name, comm) && strncmp(name, "start-", 6) == 0);
    return 3;
}
