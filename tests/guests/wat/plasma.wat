;; Moving colours and a tune, by the `quintet` namespace: `quintet run --wasm plasma.wasm`. A key changes the colours, Escape
;; ends it. `--invoke short` is a second of it.
(module
  (import "quintet" "now" (func $now (result i64)))
  (import "quintet" "sleep_until" (func $sleep_until (param i64)))
  (import "quintet" "present" (func $present (param i32 i32 i32) (result i32)))
  (import "quintet" "input" (func $input (param i32) (result i32)))
  (import "quintet" "sound" (func $sound (param i32 i32) (result i32)))
  (memory (export "memory") 8)

  ;; 0: numbers of an event. 64: what a note adds to a phase for each of 48000 frames a second, 2^32 being a turn; a minor
  ;; seventh chord and back, from A3. 1024: 256 words of a sine between 0 and 255. 0x10000: 320 by 200 pixels.
  ;; 0x60000: 800 frames of sound.
  (data (i32.const 64)
    "\93\5f\2c\01" "\c3\34\65\01" "\2f\0d\c2\01" "\56\34\17\02"
    "\26\bf\58\02" "\56\34\17\02" "\2f\0d\c2\01" "\c3\34\65\01")

  (global $colour (mut i32) (i32.const 0))
  (global $played (mut i32) (i32.const 0))

  ;; s(n + 1) = 2 cos(turn / 256) s(n) - s(n - 1)
  (func $sines (local $n i32) (local $a f64) (local $b f64) (local $c f64)
    (local.set $b (f64.const -0.024541228522912288))
    (loop $next
      (i32.store offset=1024 (i32.shl (local.get $n) (i32.const 2))
        (i32.trunc_sat_f64_s (f64.add (f64.const 127.5) (f64.mul (f64.const 127.5) (local.get $a)))))
      (local.set $c (f64.sub (f64.mul (f64.const 1.9993976373924083) (local.get $a)) (local.get $b)))
      (local.set $b (local.get $a))
      (local.set $a (local.get $c))
      (br_if $next (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 256)))))

  (func $sine (param $n i32) (result i32)
    (i32.load offset=1024 (i32.shl (i32.and (local.get $n) (i32.const 255)) (i32.const 2))))

  (func $draw (param $t i32) (local $x i32) (local $y i32) (local $v i32) (local $to i32) (local $row i32)
    (local.set $to (i32.const 0x10000))
    (loop $line
      (local.set $x (i32.const 0))
      (local.set $row (call $sine (i32.sub (i32.mul (local.get $y) (i32.const 2)) (local.get $t))))
      (loop $pixel
        (local.set $v (i32.add (i32.add (local.get $row)
            (call $sine (i32.add (local.get $x) (local.get $t))))
          (i32.add
            (call $sine (i32.add (i32.add (local.get $x) (local.get $y)) (i32.shl (local.get $t) (i32.const 1))))
            (call $sine (i32.add (local.get $row)
              (i32.shr_u (call $sine (i32.sub (local.get $x) (local.get $t))) (i32.const 1)))))))
        (local.set $v (i32.add (i32.shr_u (local.get $v) (i32.const 1)) (local.get $t)))
        (i32.store (local.get $to) (i32.or
          (i32.shl (call $sine (local.get $v)) (i32.const 16))
          (i32.or
            (i32.shl (call $sine (i32.add (local.get $v) (i32.add (global.get $colour) (i32.const 85)))) (i32.const 8))
            (call $sine (i32.add (local.get $v) (i32.const 170))))))
        (local.set $to (i32.add (local.get $to) (i32.const 4)))
        (br_if $pixel (i32.lt_u (local.tee $x (i32.add (local.get $x) (i32.const 1))) (i32.const 320))))
      (br_if $line (i32.lt_u (local.tee $y (i32.add (local.get $y) (i32.const 1))) (i32.const 200)))))

  ;; A triangle wave of the note that frame $n is in, fading until the next.
  (func $wave (param $n i32) (param $octave i32) (result f32) (local $phase i32) (local $in i32)
    (local.set $in (i32.rem_u (local.get $n) (i32.const 9600)))
    (local.set $phase (i32.mul (local.get $in) (i32.shl
      (i32.load offset=64 (i32.shl
        (i32.and (i32.div_u (local.get $n) (i32.const 9600)) (i32.const 7)) (i32.const 2)))
      (local.get $octave))))
    (f32.mul
      (f32.sub (f32.abs (f32.div (f32.convert_i32_s (local.get $phase)) (f32.const 2147483648))) (f32.const 0.5))
      (f32.mul (f32.const 0.4)
        (f32.sub (f32.const 1) (f32.div (f32.convert_i32_u (local.get $in)) (f32.const 9600))))))

  ;; As much of the tune as fits now. What does not fit is made again: it depends on the frame's number alone.
  (func $play (local $n i32) (local $to i32)
    (local.set $to (i32.const 0x60000))
    (loop $frame
      (f32.store (local.get $to)
        (call $wave (i32.add (global.get $played) (local.get $n)) (i32.const 0)))
      (f32.store offset=4 (local.get $to)
        (call $wave (i32.add (global.get $played) (i32.add (local.get $n) (i32.const 4800))) (i32.const 1)))
      (local.set $to (i32.add (local.get $to) (i32.const 8)))
      (br_if $frame (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 800))))
    (local.set $n (call $sound (i32.const 0x60000) (i32.const 800)))
    (if (i32.gt_s (local.get $n) (i32.const 0))
      (then (global.set $played (i32.add (global.get $played) (local.get $n))))))

  ;; Frames, 60 a second, until there were so many or Escape is pressed; how many there were.
  (func $frames (param $most i32) (result i32) (local $n i32) (local $start i64) (local $kind i32)
    (call $sines)
    (local.set $start (call $now))
    (loop $next
      (call $draw (local.get $n))
      (drop (call $present (i32.const 0x10000) (i32.const 320) (i32.const 200)))
      (call $play)
      (loop $events
        (local.set $kind (call $input (i32.const 0)))
        (if (i32.and (i32.eq (local.get $kind) (i32.const 1)) (i32.load (i32.const 4))) (then
          (if (i32.eq (i32.load (i32.const 0)) (i32.const 41)) (then (return (local.get $n))))
          (global.set $colour (i32.add (global.get $colour) (i32.const 37)))))
        (br_if $events (local.get $kind)))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (call $sleep_until (i64.add (local.get $start)
        (i64.mul (i64.extend_i32_u (local.get $n)) (i64.const 16666667))))
      (br_if $next (i32.lt_u (local.get $n) (local.get $most))))
    (local.get $n))

  (func (export "main") (result i32) (call $frames (i32.const -1)))
  (func (export "short") (result i32) (call $frames (i32.const 60))))
