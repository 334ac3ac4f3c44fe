# Shadows and heaps of the sanitizers at the addresses that they want: what they find, and what runs under them without a finding.
cd "$TMP"
cat >m.c <<'C'
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
static int shared;
static void *add(void *one) { for (int i = 0; i < 1000; i++) shared += *(int *)one; return NULL; }
int main(int argc, char **argv) {
    volatile char *heap = malloc(10);
    int one = 1, wide = 30 + argc;
    pthread_t threads[2];
    if (argc == 2) heap[argc + 8] = 1;
    if (argc == 3) printf("%d\n", one << wide);
    for (int i = 0; i < 2; i++) {
        pthread_create(&threads[i], NULL, add, &one);
        if (argc != 4) pthread_join(threads[i], NULL);
    }
    for (int i = 0; argc == 4 && i < 2; i++) pthread_join(threads[i], NULL);
    free((void *)heap);
    return printf("done %d\n", argc == 4 ? 0 : shared) < 0;
}
C
export ASAN_OPTIONS=detect_leaks=0 # in leaks.sh
for kind in address undefined thread; do
    gcc -g -O1 -pthread -fsanitize=$kind m.c -o m
    for arguments in '' 1 '1 2' '1 2 3'; do
        ./m $arguments 2>err
        echo "$kind $? $(grep -oE 'heap-buffer-overflow|left shift of 1 by 33|data race' err | sort -u | tr '\n' ' ')"
    done
done
