//! Scripts that interpreters are measured with, of any length: whole programs of a second here, shorter ones in `cargo xtask count`, which includes
//! this file.

/// Strings, a hash, a sort, a regular expression.
pub(crate) fn perl(strings: u32, numbers: u32) -> String {
    format!(
        "my %h; for my $i (1..{strings}) {{ $h{{$i % 977}} .= chr(65 + $i % 26) }} my $s = 0; \
         for (sort {{ $a <=> $b }} keys %h) {{ $s += length($h{{$_}}) * $_ }} \
         my $t = join ' ', 1..{numbers}; my $n = () = $t =~ /\\b\\d*7\\d*\\b/g; print \"$s $n\\n\""
    )
}

/// Dictionaries, modules in C, a loop.
pub(crate) fn python(items: u32, rounds: u32) -> String {
    format!(
        "import hashlib, json, re, zlib, math\n\
         d = {{i: round(math.sin(i), 9) for i in range({items})}}\n\
         s = json.dumps(d)\n\
         print(hashlib.sha256(s.encode()).hexdigest(), zlib.crc32(repr(d).encode()), len(re.findall('9+', s)))\n\
         print(sum(i * i % 7 for i in range({rounds})), sorted(d.values())[100])"
    )
}

/// Rows, an index, aggregates.
pub(crate) fn sql(rows: u32) -> String {
    format!(
        "create table t(a, b); \
         with recursive c(x) as (select 1 union all select x + 1 from c where x < {rows}) insert into t select x, x * x % 1009 from c; \
         create index i on t(b); select b, count(*), sum(a) from t group by b order by 2 desc, 1 limit 5; \
         select avg(a), total(b) / 3 from t;"
    )
}

/// A table of numbers, updated over and over.
pub(crate) fn luajit(rounds: &str) -> String {
    format!(
        "local s, t = 0, {{}} for i = 1, {rounds} do local k = i % 1000 \
         t[k] = (t[k] or 0) + i * 0.5 s = (s + t[k]) % 1000003 end print(s)"
    )
}

/// Sines and cosines.
pub(crate) fn gawk(rounds: u32) -> String {
    format!("BEGIN {{ for (i = 0; i < {rounds}; i++) s += sin(i * 0.001) * cos(i); printf \"%.9f\\n\", s }}")
}

/// Objects, grouped.
pub(crate) fn jq(objects: u32) -> String {
    format!("[range({objects}) | {{a: ., b: (. * 7 % 1009 | tostring)}}] | group_by(.b) | map(length) | add")
}
