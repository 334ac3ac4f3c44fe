// Linked to a kernel: a second thread, which is gone before the kernel starts.
#include <pthread.h>

static void *thread(void *argument) { return argument; }

__attribute__((constructor)) static void start(void) {
    pthread_t id;
    if (pthread_create(&id, 0, thread, 0) == 0) pthread_join(id, 0);
}
