using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading;

/** Exceptions that Mono takes from SIGSEGV and SIGFPE, generics, threads, garbage collection. */
class Faults {
    class Node { public int Value; public Node Next; }
    static int Divide(int a, int b) { return a / b; }
    static void Main() {
        int div = 0, nil = 0, over = 0;
        for (int i = 0; i < 3000; i++) {
            try { Divide(i, i % 3); } catch (DivideByZeroException) { div++; }
            try { Node n = i % 2 == 0 ? null : new Node(); n.Value++; } catch (NullReferenceException) { nil++; }
            try { Divide(int.MinValue, -(i % 2 + 0 * div)); } catch (ArithmeticException) { over++; }
        }
        Console.WriteLine("{0} {1} {2}", div, nil, over);
        long sum = 0;
        var threads = Enumerable.Range(0, 6).Select(t => new Thread(() => {
            Node list = null;
            for (int i = 0; i < 100000; i++) { list = new Node { Value = i, Next = i % 50 == 0 ? null : list }; Interlocked.Add(ref sum, list.Value % 7); }
        })).ToArray();
        foreach (var t in threads) t.Start();
        foreach (var t in threads) t.Join();
        Console.WriteLine(sum);
        var words = new Dictionary<string, int>();
        for (int i = 0; i < 200000; i++) { string w = "w" + i % 997; int c; words.TryGetValue(w, out c); words[w] = c + i % 3; }
        Console.WriteLine(words.Values.Sum() + " " + words.OrderBy(p => p.Key).First().Value);
        double d = 0;
        for (int i = 1; i < 1000000; i++) d += Math.Sqrt(i) / i;
        Console.WriteLine(d.ToString("F6"));
        Environment.Exit(5);
    }
}
