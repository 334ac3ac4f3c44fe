// Go calls C and C calls Go, on threads that C made; a fault in Go code below C frames is recovered.
package main

/*
#include <pthread.h>
#include <stdint.h>
extern int64_t goCallback(int64_t);
static void *thread(void *p) { int64_t s = 0; for (int i = 0; i < 300; i++) s += goCallback(i); *(int64_t *)p = s; return 0; }
static int64_t threads(void) {
	pthread_t t[4]; int64_t r[4], s = 0;
	for (int i = 0; i < 4; i++) pthread_create(&t[i], 0, thread, &r[i]);
	for (int i = 0; i < 4; i++) { pthread_join(t[i], 0); s += r[i]; }
	return s;
}
static int64_t square(int64_t x) { return x * x; }
*/
import "C"
import "fmt"

var none *int

//export goCallback
func goCallback(x C.int64_t) (r C.int64_t) {
	defer func() {
		if recover() != nil {
			r = 1000
		}
	}()
	if x%10 == 0 {
		*none = 1
	}
	return x
}

func main() {
	s := int64(0)
	for i := 0; i < 20000; i++ {
		s += int64(C.square(C.int64_t(i)))
	}
	fmt.Println(s, C.threads())
}
