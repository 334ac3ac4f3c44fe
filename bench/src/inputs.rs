//! What the measured programs work on: made here, the same on every machine.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Writes all inputs into `dir`.
pub(crate) fn write(dir: &Path) -> io::Result<()> {
    text(&dir.join("text"))?;
    fs::write(dir.join("pi.bc"), "scale = 900\n4 * a(1)\nquit\n")?;
    fs::write(dir.join("functions.c"), functions(250))
}

/// The numbers of a linear congruence (Knuth, "The Art of Computer Programming", vol. 2, 3.3.4, table 1).
struct Numbers(u32);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0
    }

    /// A number below `n`.
    fn below(&mut self, n: u32) -> u32 {
        (self.next() >> 8) % n
    }
}

/// 6 MB of text that compresses somewhat.
fn text(path: &Path) -> io::Result<()> {
    let mut file = io::BufWriter::new(fs::File::create(path)?);
    let mut numbers = Numbers(1);
    for _ in 0..700_000 {
        let seed = numbers.next();
        let word = seed >> 22;
        write!(file, "{} {word:x} ", word * word % 7919)?;
        if seed >> 28 == 0 {
            writeln!(file, "line {seed}")?;
        }
    }
    file.flush()
}

/// A C file of `count` functions with loops, switches and calls, preprocessed.
fn functions(count: u32) -> String {
    let mut numbers = Numbers(7);
    let mut c = String::from("struct item { int key; long sum; struct item *next; double weight; };\n");
    for f in 0..count {
        let mut pick = |n| numbers.below(n);
        let (a, b, d, e) = (pick(1000) + 1, pick(31) + 1, pick(7) + 2, pick(3) + 1);
        let callee = format!("f{}(x ^ {a}, y - {b}, p)", f + 1);
        let _ = write!(
            c,
            "long f{}(long x, int y, struct item *p);\n\
             long f{f}(long x, int y, struct item *p) {{\n\
             \x20 long s = {a}; double w = 0;\n\
             \x20 for (int i = 0; i < y; i++) {{ s += x >> (i % {b}); if (s % {d} == {}) s ^= i * {a}; else s -= x / (i + {e}); }}\n\
             \x20 if (p && p->key != y) {{ p->sum += s; w += p->weight * {b}.5; p = p->next; }}\n\
             \x20 switch (y % {}) {{\n",
            f + 1,
            d - 1,
            e + 1
        );
        for case in 0..e {
            let _ = writeln!(c, "  case {case}: s = s * {} + (unsigned)y / {}; break;", pick(99) + 2, pick(9) + 1);
        }
        let _ = writeln!(c, "  default: s += {callee};\n  }}\n  return s + (long)w;\n}}");
    }
    c
}
