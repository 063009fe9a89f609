;; A memory that grows, to be watched from another process: `quintet watch N`. Every fifth growth is by nothing, which
;; detaches views as well. Returns its last size in pages.
(module
  (import "quintet" "sleep" (func $sleep (param i64)))
  (memory (export "memory") 1 64)

  ;; Fills page $n with every (1 + $n mod 5)th byte set, so that pages differ in the picture.
  (func $paint (param $n i32) (local $at i32) (local $end i32)
    (local.set $at (i32.shl (local.get $n) (i32.const 16)))
    (local.set $end (i32.add (local.get $at) (i32.const 65536)))
    (loop $next
      (i32.store8 (local.get $at) (i32.or (local.get $n) (i32.const 0x80)))
      (local.set $at (i32.add (local.get $at)
        (i32.add (i32.const 1) (i32.rem_u (local.get $n) (i32.const 5)))))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end)))))

  (func $grow (param $pause i64) (result i32) (local $n i32) (local $page i32)
    (call $paint (i32.const 0))
    (loop $next
      (call $sleep (local.get $pause))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (local.set $page (memory.grow (i32.ne (i32.rem_u (local.get $n) (i32.const 5)) (i32.const 0))))
      (if (i32.lt_u (local.get $page) (memory.size)) (then (call $paint (local.get $page))))
      (br_if $next (i32.lt_u (memory.size) (i32.const 64))))
    (memory.size))

  (func (export "main") (result i32) (call $grow (i64.const 200000000)))
  (func (export "short") (result i32) (call $grow (i64.const 5000000))))
