// What objects.js does, in Java: compiled from source, then by the JIT.
import java.util.*;

class Objects {
    record Vec(long x, long y) {
        Vec add(Vec o) { return new Vec(x + o.x, y + o.y); }
    }

    static void work() {
        var map = new HashMap<Integer, Integer>();
        var v = new Vec(0, 0);
        int s = 0;
        for (int i = 0; i < 6_000_000; i++) {
            v = v.add(new Vec(i & 7, i % 3));
            s = s * 31 + i;
            if ((i & 15) == 0) map.put(i % 5003, s);
        }
        var list = new ArrayList<Integer>();
        for (int i = 0; i < 400_000; i++) list.add((int) (i * 7919L % 1_000_003));
        Collections.sort(list);
        var text = new StringBuilder();
        for (int i = 0; i < 300_000; i++) text.append((char) (97 + i % 26));
        System.out.println(s + " " + v + " " + map.size() + " " + list.get(1000) + " " + text.toString().replaceAll("[aeiou]", "").length());
    }

    public static void main(String[] args) {
        for (int n = 0; n < 4; n++) work();
    }
}
