let rec f n = if n < 2 then n else f (n-1) + f (n-2)
let () = Printf.printf "%d\n" (f 27); try ignore (1 / (Sys.opaque_identity 0)) with Division_by_zero -> print_endline "div"
let rec deep n = 1 + deep (n + 1)
let () = try ignore (deep 0) with Stack_overflow -> print_endline "overflow"
