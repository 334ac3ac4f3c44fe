// C++: virtual calls, small allocations, containers, exceptions.
#include <cstdio>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

struct Node {
    virtual ~Node() = default;
    virtual long value(long x) const = 0;
};
struct Constant : Node { long c; explicit Constant(long c) : c(c) {} long value(long) const override { return c; } };
struct Variable : Node { long value(long x) const override { return x; } };
struct Sum : Node {
    std::unique_ptr<Node> a, b;
    Sum(std::unique_ptr<Node> a, std::unique_ptr<Node> b) : a(std::move(a)), b(std::move(b)) {}
    long value(long x) const override { return a->value(x) + b->value(x); }
};
struct Product : Node {
    std::unique_ptr<Node> a, b;
    Product(std::unique_ptr<Node> a, std::unique_ptr<Node> b) : a(std::move(a)), b(std::move(b)) {}
    long value(long x) const override { return (a->value(x) * b->value(x)) % 1000003; }
};

static unsigned seed = 1;
static unsigned next() { return seed = seed * 1664525 + 1013904223; }

static std::unique_ptr<Node> tree(int depth) {
    if (depth == 0) {
        if (next() >> 31) return std::make_unique<Variable>();
        return std::make_unique<Constant>(next() >> 20);
    }
    auto a = tree(depth - 1), b = tree(depth - 1);
    if (next() >> 31) return std::make_unique<Sum>(std::move(a), std::move(b));
    return std::make_unique<Product>(std::move(a), std::move(b));
}

__attribute__((noinline)) static long risky(long x) {
    if (x % 50 == 0) throw std::runtime_error("fifty");
    return x * 3;
}

int main() {
    long sum = 0;
    auto root = tree(12);
    for (long x = 0; x < 1500; x++) sum += root->value(x);
    for (int i = 0; i < 40; i++) sum += tree(11)->value(i);
    std::map<std::string, long> words;
    std::unordered_map<unsigned, std::string> names;
    for (int i = 0; i < 200000; i++) {
        std::string word = std::to_string(next() % 5000);
        words[word] += i;
        names[next() % 5000] = word + "!";
    }
    for (auto &[word, n] : words) sum += n * word.size();
    for (auto &[k, name] : names) sum += k * name.size();
    std::vector<long> stack;
    for (long i = 0; i < 1000000; i++) {
        try { stack.push_back(risky(i)); } catch (const std::exception &e) { sum += e.what()[0]; stack.clear(); }
    }
    std::printf("%ld\n", sum);
}
