//! Debian's programs: large ones, flat ones and short ones, of which kernels tell nothing. What costs there is translation, and whatever brings
//! threads back to the dispatcher.

use super::{Session, translator};
use crate::counting::Emulated;
use crate::shell::{command, run, target};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// What the command line calls them.
pub(super) const PROGRAMS: &str = "programs";

const PERL: &str = "my %h; for my $i (1..200000) { $h{$i % 977} .= chr(65 + $i % 26) } my $s = 0; \
    for (sort { $a <=> $b } keys %h) { $s += length($h{$_}) * $_ } \
    my $t = join ' ', 1..20000; my $n = () = $t =~ /\\b\\d*7\\d*\\b/g; print \"$s $n\\n\"";
const PYTHON: &str = "import hashlib, json, re, zlib, math\n\
    d = {i: round(math.sin(i), 9) for i in range(15000)}\n\
    s = json.dumps(d)\n\
    print(hashlib.sha256(s.encode()).hexdigest(), zlib.crc32(repr(d).encode()), len(re.findall('9+', s)))\n\
    print(sum(i * i % 7 for i in range(200000)), sorted(d.values())[100])";
const SQL: &str = "create table t(a, b); \
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 40000) insert into t select x, x * x % 1009 from c; \
    create index i on t(b); select b, count(*), sum(a) from t group by b order by 2 desc, 1 limit 5; \
    select avg(a), total(b) / 3 from t;";
const JQ: &str = "[range(15000) | {a: ., b: (. * 7 % 1009 | tostring)}] | group_by(.b) | map(length) | add";
const GAWK: &str = "BEGIN { for (i = 0; i < 300000; i++) s += sin(i * 0.001) * cos(i); printf \"%.9f\\n\", s }";
const LUAJIT: &str = "local s, t = 0, {} for i = 1, 6e6 do local k = i % 1000 \
    t[k] = (t[k] or 0) + i * 0.5 s = (s + t[k]) % 1000003 end print(s)";

/// Name, and the command; `TEXT` stands for a file of text, `SOURCE` for one of C, `CC1` for the compiler; names are of programs in `/usr/bin`.
const ROWS: [(&str, &[&str]); 12] = [
    ("gzip", &["gzip", "-n6", "-c", TEXT]),
    ("bzip2", &["bzip2", "-1", "-c", TEXT]),
    ("xz", &["xz", "-1", "-T1", "-c", TEXT]),
    ("zstd", &["zstd", "-9", "-q", "--single-thread", "-c", TEXT]),
    ("sqlite3", &["sqlite3", ":memory:", SQL]),
    ("perl", &["perl", "-e", PERL]),
    ("python3", &["python3", "-c", PYTHON]),
    ("jq", &["jq", "-n", JQ]),
    ("gawk", &["gawk", GAWK]),
    ("luajit", &["luajit", "-e", LUAJIT]),
    ("bash -c :", &["bash", "-c", ":"]),
    ("cc1 -O2", &[CC1, "-quiet", "-fpreprocessed", "-O2", SOURCE, "-o", "-"]),
];

const TEXT: &str = "TEXT";
const CC1: &str = "CC1";
const SOURCE: &str = "SOURCE";

impl Session {
    /// The table: nothing is saved from one run to the next.
    pub(super) fn programs(&self) -> Result<String, String> {
        let mut table = String::from(
            "## Programs\n\nDebian's, dynamically linked, whole runs of a tenth of a second or two natively: start-up and translation weigh more than in long ones.\n\n\
             | program | 10^6 guest instructions | 10^6 instructions of Calque | ratio |\n|---|---|---|---|\n",
        );
        let (text, source) = (text()?, source()?);
        for (name, row) in ROWS {
            let words: Vec<PathBuf> = row.iter().map(|word| expand(word, &text, &source)).collect::<Result<_, _>>()?;
            let program = if row[0] == CC1 { words[0].clone() } else { Path::new("/usr/bin").join(&words[0]) };
            if !program.exists() {
                println!("count: {}: not installed", program.display());
                continue;
            }
            let words = [&[program], &words[1..]].concat();
            let guest = [&["-cpu".into(), "max".into()], &words[..]].concat();
            let (guest, expected) = self.counters.count(Emulated::X86_64, &guest)?;
            let unsaved = ["--cache-dir".into(), PathBuf::new(), "--".into()];
            let translated = [&translator(&self.calque, &self.engine)[..], &unsaved, &words].concat();
            let (calque, output) = self.counters.count(Emulated::Aarch64, &translated)?;
            if output != expected {
                return Err(format!("{name} prints something else than natively"));
            }
            let millions = |count: u64| count as f64 / 1e6;
            let ratio = calque as f64 / guest.max(1) as f64;
            let _ = writeln!(table, "| {name} | {:.0} | {:.0} | {ratio:.2} |", millions(guest), millions(calque));
        }
        Ok(table + "\n")
    }
}

fn expand(word: &str, text: &Path, source: &Path) -> Result<PathBuf, String> {
    match word {
        TEXT => Ok(text.into()),
        SOURCE => Ok(source.into()),
        CC1 => {
            let out = command("gcc", ["-print-prog-name=cc1"]).output().map_err(|e| format!("gcc: {e}"))?;
            Ok(String::from_utf8_lossy(&out.stdout).trim().into())
        }
        _ => Ok(word.into()),
    }
}

/// A program in C, preprocessed.
fn source() -> Result<PathBuf, String> {
    let path = target().join("bench/preprocessed.c");
    let mut gcc = command("gcc", ["-E", "-P", "bench/guests/integer_mix.c", "-o"]);
    if run(gcc.arg(&path)) { Ok(path) } else { Err("gcc cannot preprocess integer_mix.c".into()) }
}

/// A megabyte of text that compresses somewhat, the same everywhere.
fn text() -> Result<PathBuf, String> {
    let (mut text, mut random) = (String::new(), 1u32);
    while text.len() < 1 << 20 {
        // Knuth, "The Art of Computer Programming", vol. 2, 3.3.4, table 1.
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let word = random >> 22;
        let end = if random >> 28 == 0 { '\n' } else { ' ' };
        let _ = write!(text, "{} {word:x}{end}", word * word % 7919);
    }
    let path = target().join("bench/text");
    fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}
