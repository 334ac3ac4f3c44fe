# rustc compiles and links a program with threads and panics, which then runs.
cd "$TMP"
cat >m.rs <<'R'
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, mpsc};
#[derive(Debug, Clone, PartialEq)]
enum Tree { Leaf(i64), Node(Box<Tree>, Box<Tree>) }
fn build(d: u32, s: &mut i64) -> Tree { *s += 1; if d == 0 { Tree::Leaf(*s) } else { Tree::Node(Box::new(build(d - 1, s)), Box::new(build(d - 1, s))) } }
fn sum(t: &Tree) -> i64 { match t { Tree::Leaf(x) => *x, Tree::Node(l, r) => sum(l) + sum(r) } }
fn main() {
    let map = Arc::new(Mutex::new(BTreeMap::new()));
    let (tx, rx) = mpsc::channel();
    for i in 0..8 {
        let (map, tx) = (map.clone(), tx.clone());
        std::thread::spawn(move || { map.lock().unwrap().insert(i, sum(&build(10, &mut (i as i64)))); tx.send(i * i).unwrap(); });
    }
    drop(tx);
    println!("{} {:?}", rx.iter().sum::<i32>(), map.lock().unwrap());
    let caught = std::panic::catch_unwind(|| { let v: Vec<i32> = Vec::new(); v[std::env::args().count()] });
    println!("{}", caught.is_err());
    std::process::exit(6);
}
R
rustc -C opt-level=2 --edition 2021 -o m m.rs && ./m
