;; A module of 1.5 MB that returns 42, as large ones travel by a sealed memfd. `cargo xtask guest seed` fills it.
;;
;; What makes it large is a data segment of 1500000 bytes in place of the word below, each byte the number of its place
;; times 167. `main` looks at all of them, and returns the first place that is wrong when there is one.
(module
  (memory (export "memory") 23)
  (data (i32.const 0) "FILL")
  (func (export "main") (result i32) (local $at i32)
    (loop $next
      (if (i32.ne
            (i32.load8_u (local.get $at))
            (i32.and (i32.mul (local.get $at) (i32.const 167)) (i32.const 255)))
        (then (return (local.get $at))))
      (br_if $next (i32.lt_u
        (local.tee $at (i32.add (local.get $at) (i32.const 1)))
        (i32.const 1500000))))
    (i32.const 42)))
