// Goroutines, channels, timers, recovered faults, preemption of loops that never call, signals, children.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

type tree struct{ left, right *tree }

func build(d int) *tree {
	if d == 0 {
		return &tree{}
	}
	return &tree{build(d - 1), build(d - 1)}
}
func (t *tree) count() int {
	if t.left == nil {
		return 1
	}
	return 1 + t.left.count() + t.right.count()
}

func caught(f func()) (what string) {
	defer func() { what = fmt.Sprint(recover()) }()
	f()
	return "nothing"
}

var zero int
var none *tree
var array []int

func main() {
	runtime.GOMAXPROCS(4)
	for i := 0; i < 3; i++ {
		fmt.Println(caught(func() { fmt.Println(none.left) }))
		fmt.Println(caught(func() { fmt.Println(1 / zero) }))
		fmt.Println(caught(func() { fmt.Println(array[5]) }))
	}
	many := 0
	for i := 0; i < 2000; i++ {
		if strings.Contains(caught(func() { none.right = nil }), "nil pointer") {
			many++
		}
	}
	fmt.Println(many)

	var spun atomic.Int64
	stop := int32(0)
	for i := 0; i < 6; i++ {
		go func() {
			for x := 0; stop == 0; x++ { // never calls: only a signal preempts it
				if x == 1000 {
					spun.Add(1)
				}
			}
		}()
	}
	time.Sleep(30 * time.Millisecond)
	runtime.GC()
	fmt.Println("preempted", spun.Load() > 0)

	var wait sync.WaitGroup
	var mutex sync.Mutex
	results := make(chan int, 10)
	sum, total := 0, 0
	for i := 0; i < 200; i++ {
		wait.Add(1)
		go func(i int) {
			defer wait.Done()
			n := build(8).count()
			mutex.Lock()
			sum += n
			mutex.Unlock()
			results <- i * i
		}(i)
	}
	go func() { wait.Wait(); close(results) }()
	for r := range results {
		total += r
	}
	fmt.Println(sum, total)

	signals := make(chan os.Signal, 10)
	signal.Notify(signals, syscall.SIGUSR1)
	for i := 0; i < 20; i++ {
		syscall.Kill(os.Getpid(), syscall.SIGUSR1)
		<-signals
	}
	fmt.Println("signals")
	for i := 0; i < 5; i++ {
		out, err := exec.Command("/bin/echo", "child", fmt.Sprint(i)).Output()
		fmt.Print(string(out), err, "\n")
	}
	_, err := exec.Command("/nonexistent/program").Output()
	fmt.Println(err)
	os.Exit(4)
}
