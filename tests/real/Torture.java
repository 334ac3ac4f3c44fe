import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.stream.*;

/** Threads, exceptions that the virtual machine takes from SIGSEGV and SIGFPE, garbage collection, compiled and inlined code. */
public class Torture {
    interface Shape { double area(); }
    record Circle(double r) implements Shape { public double area() { return Math.PI * r * r; } }
    record Square(double a) implements Shape { public double area() { return a * a; } }
    static class Node { Node next; int[] data = new int[32]; Node(Node n) { next = n; } }

    static int implicitChecks(int n) {
        int caught = 0;
        int[] array = new int[8];
        for (int i = 0; i < n; i++) {
            Node node = i % 4 == 0 ? null : new Node(null);
            try { caught += node.data[i % 40] + array[i % 8] / (i % 3); }
            catch (NullPointerException e) { caught += 1; }
            catch (ArithmeticException e) { caught += 10; }
            catch (ArrayIndexOutOfBoundsException e) { caught += 100; }
        }
        return caught;
    }
    static int depth;
    static void recurse() { depth++; recurse(); }

    public static void main(String[] args) throws Exception {
        System.out.println(implicitChecks(200_000));
        for (int i = 0; i < 3; i++) {
            depth = 0;
            try { recurse(); } catch (StackOverflowError e) { System.out.println("overflow " + (depth > 1000)); }
        }
        ExecutorService pool = Executors.newFixedThreadPool(8);
        AtomicLong sum = new AtomicLong();
        ConcurrentHashMap<Integer, Integer> map = new ConcurrentHashMap<>();
        List<Future<Long>> futures = new ArrayList<>();
        for (int t = 0; t < 16; t++) {
            final int id = t;
            futures.add(pool.submit(() -> {
                long s = 0;
                Node list = null;
                for (int i = 0; i < 40_000; i++) {
                    list = new Node(i % 100 == 0 ? null : list);
                    list.data[i % 32] = i;
                    s += list.data[(i + id) % 32];
                    map.merge(i % 97, 1, Integer::sum);
                    sum.incrementAndGet();
                }
                return s;
            }));
        }
        long total = 0;
        for (Future<Long> f : futures) total += f.get();
        System.out.println(total + " " + sum.get() + " " + map.values().stream().mapToInt(x -> x).sum());
        pool.shutdown();
        System.out.println(pool.awaitTermination(10, TimeUnit.SECONDS));
        Object lock = new Object();
        int[] turn = {0};
        Thread[] players = new Thread[2];
        for (int p = 0; p < 2; p++) {
            final int me = p;
            players[p] = new Thread(() -> {
                for (int i = 0; i < 2000; i++) synchronized (lock) {
                    while (turn[0] % 2 != me) try { lock.wait(); } catch (InterruptedException e) { return; }
                    turn[0]++;
                    lock.notifyAll();
                }
            });
            players[p].start();
        }
        for (Thread p : players) p.join();
        System.out.println(turn[0]);
        System.gc();
        double area = IntStream.range(0, 300_000).mapToObj(i -> i % 2 == 0 ? new Circle(i % 10) : (Shape) new Square(i % 7)).mapToDouble(Shape::area).sum();
        System.out.printf("%.6f%n", area);
        System.out.println(IntStream.range(0, 100_000).parallel().mapToLong(i -> (long) i * i % 1009).sum());
        String text = IntStream.range(0, 20_000).mapToObj(Integer::toString).collect(Collectors.joining(","));
        System.out.println(text.hashCode() + " " + text.split("7,").length + " " + String.format("%x", new java.math.BigInteger("7").pow(999).hashCode()));
        Thread spinner = new Thread(() -> { long x = 0; while (!Thread.currentThread().isInterrupted()) x++; });
        spinner.start();
        Thread.sleep(20);
        spinner.interrupt();
        spinner.join();
        System.out.println("done");
        System.exit(3);
    }
}
