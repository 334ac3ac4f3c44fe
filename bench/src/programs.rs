//! The programs that are measured. But for start-ups each takes about 0.1 to 1 s natively, so that starting up weighs little in it.

use crate::inputs;
use crate::runner::find;
use crate::scripts;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

/// What kind of program it is; means are taken by group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Group {
    /// Compiled code with hot loops of integers.
    Integer,
    /// Virtual calls, exceptions, containers.
    Cpp,
    /// Compiled code with hot loops of doubles.
    Float,
    /// Hot loops of vector instructions, cryptographic ones among them.
    Vector,
    /// Interpreters and other large, flat programs.
    Interpreter,
    /// Programs that make machine code themselves.
    Jit,
    /// Next to nothing: start-up.
    Startup,
}

impl Group {
    pub(crate) const ALL: [Group; 7] =
        [Group::Integer, Group::Cpp, Group::Float, Group::Vector, Group::Interpreter, Group::Jit, Group::Startup];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Group::Integer => "integer",
            Group::Cpp => "C++",
            Group::Float => "floating point",
            Group::Vector => "vectors",
            Group::Interpreter => "interpreters",
            Group::Jit => "JIT guests",
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

const LUA: &str = "local t = {} for i = 1, 200000 do t[#t + 1] = string.format('%d:%x', i, i * 7) end table.sort(t) \
    local s = 0 for _, v in ipairs(t) do s = (s * 31 + #v + v:byte(-1)) % 1000003 end \
    local function f(n) if n < 2 then return n end return f(n - 1) + f(n - 2) end print(s, f(26))";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guests/objects.js");
const JAVA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guests/Objects.java");
#[rustfmt::skip]
const FFMPEG: [&str; 16] = [
    "-v", "error", "-threads", "1", "-f", "lavfi", "-i", "testsrc2=size=480x270:rate=25:duration=0.8",
    "-c:v", "libx264", "-threads", "1", "-f", "rawvideo", "-y", "/dev/stdout",
];

/// The programs that this machine has, and a line for each that it has not. `only`: parts of names, or names of groups.
pub(crate) fn all(only: &[String]) -> (Vec<Program>, Vec<String>) {
    let work = Rc::new(tempfile::tempdir().expect("a temporary directory"));
    inputs::write(work.path()).expect("the temporary directory can be written");
    macro_rules! rows {
        ($($name:literal $group:ident $how:expr;)*) => { [$(($name, Group::$group, (|| $how) as fn() -> Result<Vec<String>, String>)),*] };
    }
    #[rustfmt::skip]
    let rows = rows! {
        "C integers"        Integer     guest("integers", "integers.c", &["-O2"]);
        "gzip"              Integer     installed("gzip", &["-n6", "-c", "text"]);
        "bzip2"             Integer     installed("bzip2", &["-1", "-c", "text"]);
        "xz"                Integer     installed("xz", &["-1", "-T1", "-c", "text"]);
        "zstd"              Integer     installed("zstd", &["-9", "-q", "--single-thread", "-c", "text"]);
        "bc"                Integer     installed("bc", &["-lq", "pi.bc"]);
        "stockfish"         Integer     installed("stockfish", &["bench", "16", "1", "9", "default", "depth"]);
        "cc1 -O2"           Integer     cc1(&["-quiet", "-O2", "functions.c", "-o", "-"]);
        "C++ objects"       Cpp         guest("objects", "objects.cc", &["-O2"]);
        "n-body"            Float       guest("nbody", "nbody.c", &["-O2"]);
        "matmul SSE2"       Float       guest("matrix-sse2", "matrix.c", &["-O3"]);
        "matmul AVX2"       Float       guest("matrix-avx2", "matrix.c", &["-O3", "-mavx2", "-mfma"]);
        "stencil"           Float       guest("stencil", "stencil.c", &["-O3"]);
        "gawk sin"          Float       installed("gawk", &[&scripts::gawk(1_600_000)]);
        "ffmpeg x264"       Float       installed("ffmpeg", &FFMPEG);
        "aes-256-gcm"       Vector      vectors("aes-256-gcm", "85000");
        "sha256"            Vector      vectors("sha256", "37000");
        "FMA product"       Vector      vectors("product", "400");
        "python3"           Interpreter installed("python3", &["-c", &scripts::python(60000, 600_000)]);
        "perl"              Interpreter installed("perl", &["-e", &scripts::perl(900_000, 60000)]);
        "lua"               Interpreter installed("lua5.4", &["-e", LUA]);
        "sqlite3"           Interpreter installed("sqlite3", &[":memory:", &scripts::sql(200_000)]);
        "jq"                Interpreter installed("jq", &["-n", &scripts::jq(60000)]);
        "node"              Jit         installed("node", &[SCRIPT]);
        "node, one second"  Jit         installed("node", &[SCRIPT, "6"]);
        "java, one second"  Jit         installed("java", &[JAVA]);
        "luajit"            Jit         installed("luajit", &["-e", &scripts::luajit("4e7")]);
        "hello"             Startup     guest("hello", "hello.c", &["-O2"]);
        "bash -c :"         Startup     installed("bash", &["-c", ":"]);
        "python3 -c pass"   Startup     installed("python3", &["-S", "-c", "pass"]);
        "git --version"     Startup     installed("git", &["--version"]);
        "gcc --version"     Startup     installed("gcc", &["--version"]);
    };
    let (mut programs, mut missing) = (Vec::new(), Vec::new());
    for (name, group, words) in rows {
        if !only.is_empty() && !only.iter().any(|part| name.contains(part.as_str()) || group.name() == part) {
            continue;
        }
        match words() {
            Ok(words) => programs.push(Program { name, group, words, work: Rc::clone(&work) }),
            Err(why) => missing.push(format!("{name}: {why}")),
        }
    }
    (programs, missing)
}

fn words(file: &Path, args: &[&str]) -> Vec<String> {
    std::iter::once(file.display().to_string()).chain(args.iter().map(|a| (*a).to_string())).collect()
}

fn installed(name: &str, args: &[&str]) -> Result<Vec<String>, String> {
    // Not a wrapper script of a version manager: those would measure bash.
    let usual = ["/usr/bin", "/usr/games"].map(|dir| PathBuf::from(dir).join(name));
    let file = usual.into_iter().find(|f| f.is_file()).or_else(|| find(name)).ok_or("not installed")?;
    Ok(words(&file, args))
}

/// The C compiler proper, without the driver that starts it.
fn cc1(args: &[&str]) -> Result<Vec<String>, String> {
    let output = Command::new("gcc").arg("-print-prog-name=cc1").output().map_err(|e| format!("gcc: {e}"))?;
    let file = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if file.is_file() { Ok(words(&file, args)) } else { Err("gcc has no cc1".into()) }
}

/// A kernel of `vectors.c`.
fn vectors(kernel: &str, rounds: &str) -> Result<Vec<String>, String> {
    let flags = ["-O3", "-mavx2", "-mfma", "-ffast-math", "-Wl,--no-as-needed", "-lcrypto"];
    let mut words = guest("vectors", "vectors.c", &flags)?;
    words.extend([kernel.into(), rounds.into()]);
    Ok(words)
}

/// Compiles a guest of `bench/guests` as `target/bench/NAME`.
pub(crate) fn guest(name: &str, source: &str, flags: &[&str]) -> Result<Vec<String>, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests").join(source);
    let dir = Path::new("target/bench");
    fs::create_dir_all(dir).map_err(|e| e.to_string())?;
    let file = dir.canonicalize().map_err(|e| e.to_string())?.join(name);
    let cross = if cfg!(target_arch = "x86_64") { "" } else { "x86_64-linux-gnu-" };
    let compiler = format!("{cross}{}", if source.extension().is_some_and(|e| e == "cc") { "g++" } else { "gcc" });
    let status = Command::new(&compiler).args(flags).arg("-o").arg(&file).arg(&source).arg("-lm").status();
    match status {
        Ok(s) if s.success() => Ok(words(&file, &[])),
        Ok(s) => Err(format!("{compiler}: {s}")),
        Err(e) => Err(format!("{compiler}: {e}")),
    }
}
