// links: dynamic static
// C++: exceptions through many frames, destructors on the way, virtual calls, RTTI, containers, threads.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

struct Shape { virtual ~Shape() = default; virtual double area() const = 0; };
struct Square : Shape { double s; explicit Square(double s) : s(s) {} double area() const override { return s * s; } };
struct Circle : Shape { double r; explicit Circle(double r) : r(r) {} double area() const override { return 3 * r * r; } };

static int destroyed;
struct Guard { ~Guard() { destroyed++; } };

__attribute__((noinline)) static int thrower(int n) {
    Guard g;
    if (n == 0) throw std::runtime_error("from the bottom");
    return thrower(n - 1) + 1;
}

int main() {
    std::vector<std::unique_ptr<Shape>> shapes;
    for (int i = 0; i < 1000; i++)
        if (i % 3) shapes.push_back(std::make_unique<Square>(i)); else shapes.push_back(std::make_unique<Circle>(i));
    double sum = 0;
    int circles = 0;
    for (auto &s : shapes) { sum += s->area(); circles += dynamic_cast<Circle *>(s.get()) != nullptr; }
    std::cout << "areas " << sum << " circles " << circles << "\n";
    for (int i = 0; i < 50; i++)
        try { thrower(i); } catch (const std::runtime_error &e) { if (i == 49) std::cout << e.what() << " " << destroyed << "\n"; }
    try { std::vector<int>().at(3); } catch (const std::exception &e) { std::cout << "at throws\n"; }
    try { try { throw 5; } catch (int v) { throw std::to_string(v); } } catch (const std::string &s) { std::cout << "rethrown " << s << "\n"; }
    std::map<std::string, int> words;
    std::istringstream text("the cat the dog the bird a cat");
    for (std::string w; text >> w;) words[w]++;
    for (auto &[w, n] : words) std::cout << w << "=" << n << " ";
    std::cout << "\n";
    std::unordered_map<int, long> squares;
    for (int i = 0; i < 5000; i++) squares[i * 7919 % 10007] += i;
    long check = 0;
    for (int i = 0; i < 10007; i++) if (auto it = squares.find(i); it != squares.end()) check = (check * 31 + it->second) % 1000003;
    std::cout << "hash " << check << "\n";
    std::exception_ptr caught;
    std::thread t([&] { try { thrower(3); } catch (...) { caught = std::current_exception(); } });
    t.join();
    try { std::rethrow_exception(caught); } catch (const std::exception &e) { std::cout << "from a thread: " << e.what() << "\n"; }
    std::vector<std::string> names;
    for (int i = 0; i < 300; i++) names.push_back(std::to_string(i * 7919 % 1000));
    std::sort(names.begin(), names.end());
    std::cout << names.front() << " " << names.back() << " " << 1.0 / 3 << std::endl;
    return 0;
}
