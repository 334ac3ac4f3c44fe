//! The programs that are measured.

use crate::runner::find;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

/// What kind of program it is; means are taken by group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Group {
    /// Compiled code with hot loops of integers.
    Integer,
    /// Compiled code with hot loops of doubles.
    Float,
    /// Interpreters and other large, flat programs.
    Interpreter,
    /// Next to nothing: start-up.
    Startup,
}

impl Group {
    pub(crate) const ALL: [Group; 4] = [Group::Integer, Group::Float, Group::Interpreter, Group::Startup];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Group::Integer => "integer",
            Group::Float => "floating point",
            Group::Interpreter => "interpreters",
            Group::Startup => "start-up",
        }
    }
}

/// A program, its arguments, and where it runs.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) group: Group,
    pub(crate) words: Vec<String>,
    pub(crate) work: Rc<tempfile::TempDir>,
}

const PERL: &str = "my %h; for my $i (1..250000) { $h{$i % 977} .= chr(65 + $i % 26) } my $s = 0; \
    for (sort { $a <=> $b } keys %h) { $s += length($h{$_}) * $_ } \
    my $t = join ' ', 1..60000; my $n = () = $t =~ /\\b\\d*7\\d*\\b/g; print \"$s $n\\n\"";
const PYTHON: &str = "import hashlib, json, re, zlib, math\n\
    d = {i: round(math.sin(i), 9) for i in range(60000)}\n\
    s = json.dumps(d)\n\
    print(hashlib.sha256(s.encode()).hexdigest(), zlib.crc32(repr(d).encode()), len(re.findall('9+', s)))\n\
    print(sum(i * i % 7 for i in range(600000)), sorted(d.values())[100])";
const SQL: &str = "create table t(a, b); \
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 200000) insert into t select x, x * x % 1009 from c; \
    create index i on t(b); select b, count(*), sum(a) from t group by b order by 2 desc, 1 limit 5; \
    select avg(a), total(b) / 3 from t;";

/// The programs that this machine has, and a line for each that it has not.
pub(crate) fn all(only: Option<&str>) -> (Vec<Program>, Vec<String>) {
    let work = Rc::new(tempfile::tempdir().expect("a temporary directory"));
    write_data(&work.path().join("data")).expect("the temporary directory can be written");
    let (mut programs, mut missing) = (Vec::new(), Vec::new());
    let mut add = |name: &'static str, group, words: Result<Vec<String>, String>| {
        if only.is_some_and(|part| !name.contains(part)) {
            return;
        }
        match words {
            Ok(words) => programs.push(Program { name, group, words, work: Rc::clone(&work) }),
            Err(why) => missing.push(format!("{name}: {why}")),
        }
    };
    #[rustfmt::skip]
    let rows = [
        ("C integers",     Group::Integer,     guest("integers.c", &["-O2"])),
        ("C++ objects",    Group::Integer,     guest("objects.cc", &["-O2"])),
        ("gzip",           Group::Integer,     installed("gzip", &["-n6", "-c", "data"])),
        ("xz",             Group::Integer,     installed("xz", &["-2", "-T1", "-c", "data"])),
        ("matrix product", Group::Float,       guest("matrix.c", &["-O3"])),
        ("n-body",         Group::Float,       guest("nbody.c", &["-O2"])),
        ("python3",        Group::Interpreter, installed("python3", &["-c", PYTHON])),
        ("perl",           Group::Interpreter, installed("perl", &["-e", PERL])),
        ("sqlite3",        Group::Interpreter, installed("sqlite3", &[":memory:", SQL])),
        ("dynamic hello",  Group::Startup,     guest("hello.c", &["-O2"])),
    ];
    for (name, group, words) in rows {
        add(name, group, words);
    }
    (programs, missing)
}

/// Writes 6 MB of text that compresses somewhat, the same on every machine.
fn write_data(path: &Path) -> io::Result<()> {
    let mut file = io::BufWriter::new(fs::File::create(path)?);
    let mut seed = 1u32;
    for _ in 0..700_000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let word = seed >> 22;
        write!(file, "{} {word:x} ", word * word % 7919)?;
        if seed >> 28 == 0 {
            writeln!(file, "line {seed}")?;
        }
    }
    file.flush()
}

fn installed(name: &str, args: &[&str]) -> Result<Vec<String>, String> {
    // Not a wrapper script of a version manager: those would measure bash.
    let usual = PathBuf::from("/usr/bin").join(name);
    let file = Some(usual).filter(|f| f.is_file()).or_else(|| find(name)).ok_or("not installed")?;
    Ok(std::iter::once(file.display().to_string()).chain(args.iter().map(|a| (*a).to_string())).collect())
}

/// Compiles a guest of `bench/guests`.
pub(crate) fn guest(source: &str, flags: &[&str]) -> Result<Vec<String>, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests").join(source);
    let dir = Path::new("target/bench");
    fs::create_dir_all(dir).map_err(|e| e.to_string())?;
    let dir = dir.canonicalize().map_err(|e| e.to_string())?;
    let file = dir.join(source.file_stem().expect("guests have names"));
    let cross = if cfg!(target_arch = "x86_64") { "" } else { "x86_64-linux-gnu-" };
    let compiler = format!("{cross}{}", if source.extension().is_some_and(|e| e == "cc") { "g++" } else { "gcc" });
    let status = Command::new(&compiler).args(flags).arg("-o").arg(&file).arg(&source).arg("-lm").status();
    match status {
        Ok(s) if s.success() => Ok(vec![file.display().to_string()]),
        Ok(s) => Err(format!("{compiler}: {s}")),
        Err(e) => Err(format!("{compiler}: {e}")),
    }
}
