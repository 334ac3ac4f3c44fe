# Leak checks of AddressSanitizer: what they find, in a program with threads that sleep, and that nothing is lost where there is nothing to find.
cd "$TMP"
cat >m.c <<'C'
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
static pthread_barrier_t ready;
static void *sleep_with(void *held) {
    char *volatile kept = malloc(77);
    pthread_barrier_wait(&ready);
    for (;;) pthread_cond_wait(&(pthread_cond_t)PTHREAD_COND_INITIALIZER, (pthread_mutex_t *)held);
    return kept;
}
int main(int argc, char **argv) {
    pthread_t threads[4];
    pthread_barrier_init(&ready, NULL, 5);
    for (int i = 0; i < 4; i++) {
        pthread_mutex_t *mutex = calloc(1, sizeof *mutex);
        pthread_mutex_lock(mutex);
        pthread_create(&threads[i], NULL, sleep_with, mutex);
    }
    pthread_barrier_wait(&ready);
    for (int i = 1; i < argc; i++) *(char *volatile *)&argv[i] = malloc(100 * i);
    for (int i = 1; i < argc; i++) argv[i] = NULL;
    printf("done\n");
    return 0;
}
C
for kind in address leak; do
    gcc -g -O1 -pthread -fsanitize=$kind m.c -o m
    for arguments in '' 1 '1 2 3'; do
        ./m $arguments 2>err
        echo "$kind $? $(grep -E 'SUMMARY|fatal' err | sed 's/.*: //')"
    done
done
