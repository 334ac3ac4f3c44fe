<?php // PHP's tracing and function JIT: loops, calls, arrays, strings, exceptions, overflow to float.
function fib(int $n): int { return $n < 2 ? $n : fib($n - 1) + fib($n - 2); }
function mandel(int $w): int { $in = 0; for ($y = 0; $y < $w; $y++) for ($x = 0; $x < $w; $x++) { $cr = 2.0 * $x / $w - 1.5; $ci = 2.0 * $y / $w - 1.0; $a = $b = 0.0; $i = 0;
  while ($a * $a + $b * $b < 4 && $i++ < 50) { $t = $a * $a - $b * $b + $cr; $b = 2 * $a * $b + $ci; $a = $t; } $in += $i > 50; } return $in; }
function risky(int $i) { if ($i % 5 == 0) throw new RuntimeException("e$i"); return intdiv(100, $i % 3); }
echo fib(22), ' ', mandel(100), "\n";
$caught = [];
for ($i = 0; $i < 20000; $i++) try { risky($i); } catch (RuntimeException $e) { @$caught['r']++; } catch (DivisionByZeroError $e) { @$caught['d']++; }
print_r($caught);
$h = []; for ($i = 0; $i < 200000; $i++) { $k = 'k' . $i % 331; $h[$k] = ($h[$k] ?? 0) + $i; } ksort($h); echo md5(serialize($h)), "\n";
$x = PHP_INT_MAX - 1000; for ($i = 0; $i < 2000; $i++) $x += 1; var_dump($x);
echo preg_match_all('/(\w)(\d+)(?=k)/', implode('', array_keys($h))), ' ', strlen(preg_replace_callback('/\d+/', fn($m) => $m[0] * 2, implode(',', $h))), "\n";
