// V8's regular expressions: interpreted first, compiled when they repeat, with backtracking, lookbehind, sticky and Unicode sets.
const words = [];
let seed = 12345;
const next = n => (seed = (seed * 1103515245 + 12345) & 0x7fffffff) % n;
for (let i = 0; i < 20000; i++) words.push('abcdefghijklmnop'.slice(next(8), 8 + next(8)) + next(1000) + (next(3) ? ' ' : '\n'));
const text = words.join('');
const patterns = [/\b[a-f]+(\d+)\b/g, /(?<=c)de(?!f)/g, /([a-z])\1?(\d)\2/g, /^.*9$/gm, /(?:ab|bc|cd)+e?f*/g, /(?<y>\d{3})(?=\s)/g, /[^\s\d]{6,}?\d/gi, /\p{Ll}+7/gu, /(a+)+z|b*c/g];
for (const p of patterns) { let n = 0, l = 0; for (const m of text.matchAll(p)) { n++; l += m[0].length; } console.log(p.source, n, l); }
console.log(text.replace(/(\d+) ([a-z]+)/g, (_, d, w) => w + d.length).length, text.split(/\s+/).length);
let made = 0;
for (let i = 0; i < 300; i++) made += (text.match(new RegExp('[' + 'abcdefgh'[i % 8] + '-z]' + i % 10 + '\\d', 'g')) || []).length;
console.log(made);
