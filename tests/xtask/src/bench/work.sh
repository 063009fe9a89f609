# The pieces of work, in busybox's applets and the shell alone: prepare_NAME and clean_NAME are not timed, work_NAME is.
# /text is 1 MiB of lines of words, made by xtask and the same everywhere.

# scaled N: N at 100 per cent, at least 1.
scaled() {
	local n=$(($1 * ${Q_SCALE:-100} / 100))
	[ "$n" -ge 1 ] || n=1
	echo "$n"
}
# again N COMMAND…: the command N times, scaled.
again() {
	local n i=0
	n=$(scaled "$1")
	shift
	while [ $i -lt "$n" ]; do
		"$@"
		i=$((i + 1))
	done
}
sum() { crc32; }

# The shell's own loop and arithmetic.
prepare_shell() { :; }
work_shell() {
	local i=0 s=1 n
	n=$(scaled 60000)
	while [ $i -lt "$n" ]; do
		i=$((i + 1))
		s=$(((s * 31 + i) % 65521))
	done
	echo $s
}
clean_shell() { :; }

# Integers and associative arrays: a sieve.
prepare_awkint() { :; }
work_awkint() {
	awk -v n="$(scaled 60000)" 'BEGIN {
		for (i = 2; i <= n; i++)
			if (!(i in composite)) {
				count++
				for (j = i + i; j <= n; j += i) composite[j] = 1
			}
		print count
	}'
}
clean_awkint() { :; }

# Floating point: an orbit count over the Mandelbrot set, and square roots by Newton's iteration.
prepare_awkfloat() { :; }
work_awkfloat() {
	awk -v n="$(scaled 60)" 'BEGIN {
		for (row = 0; row < n; row++)
			for (column = 0; column < 40; column++) {
				a = column / 16 - 2; b = row / 24 - 1.25; x = y = 0
				for (k = 0; k < 60 && x * x + y * y < 4; k++) { t = x * x - y * y + a; y = 2 * x * y + b; x = t }
				orbit += k
			}
		for (i = 1; i <= n * 100; i++) { r = i; for (k = 0; k < 9; k++) r = (r + i / r) / 2; roots += r }
		printf "%d/%.3f\n", orbit, roots
	}'
}
clean_awkfloat() { :; }

# Hashing.
prepare_sha256() { :; }
work_sha256() { again 30 sha256sum /text | sum; }
clean_sha256() { :; }
prepare_md5() { :; }
work_md5() { again 100 md5sum /text | sum; }
clean_md5() { :; }

# Compressing and expanding.
prepare_gzip() { :; }
work_gzip() { again 5 eval "gzip -c </text" | sum; }
clean_gzip() { :; }
prepare_gunzip() { gzip -c </text >text.gz; }
work_gunzip() { again 25 gunzip -c text.gz | sum; }
clean_gunzip() { rm text.gz; }
prepare_bzip2() { :; }
work_bzip2() { again 2 bzip2 -c /text | sum; }
clean_bzip2() { :; }

# Comparing and matching strings.
prepare_sort() { :; }
work_sort() { again 6 sort /text | sum; }
clean_sort() { :; }
prepare_regex() { :; }
work_regex() { again 5 grep -cE '([aeiou][^aeiou ]){4}.*(ing|ed)? [b-k]+$' /text | sum; }
clean_regex() { :; }

# Large copies from file to file.
prepare_copy() { dd if=/dev/zero of=from bs=1M count=32 2>/dev/null; }
copy() { dd if=from of=to bs=64k conv=notrunc 2>/dev/null; }
work_copy() {
	again 4 copy
	wc -c <to
}
clean_copy() { rm from to; }

# System calls of one byte.
prepare_syscall() { :; }
work_syscall() {
	dd if=/dev/zero of=/dev/null bs=1 count="$(scaled 700000)" 2>&1 | sed -n 's/ records out//p'
}
clean_syscall() { :; }

# Fresh memory, page by page.
prepare_fault() { :; }
fault() { dd if=/dev/zero of=/dev/null bs=32M count=1 2>/dev/null; }
work_fault() {
	again 14 fault
	echo "$?"
}
clean_fault() { :; }

# Processes.
prepare_fork() { :; }
work_fork() {
	again 1000 eval '(:)'
	echo "$?"
}
clean_fork() { :; }
prepare_exec() { :; }
work_exec() {
	again 500 /bin/true
	echo "$?"
}
clean_exec() { :; }

# Context switches: two processes pass a number to and fro.
prepare_switch() { mkfifo ping pong; }
work_switch() {
	local n i=0 x=0
	n=$(scaled 8000)
	while read -r x && echo $((x + 1)); do :; done <ping >pong &
	exec 8>ping 9<pong
	while [ $i -lt "$n" ]; do
		echo "$x" >&8
		read -r x <&9
		i=$((i + 1))
	done
	exec 8>&- 9<&-
	wait
	echo "$x"
}
clean_switch() { rm ping pong; }

# Names, directories and small files.
prepare_tree() { :; }
tree() {
	local d f
	mkdir tree copy
	for d in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do
		mkdir -p "tree/$d/x/y"
		for f in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do
			echo "$d$f" >"tree/$d/$f"
			echo "$f$d" >"tree/$d/x/y/$f"
		done
	done
	tar -cf - tree | tar -xf - -C copy
	find copy -type f -name '[0-9]' | sort | xargs cat
	rm -r tree copy
}
work_tree() { again 3 tree | sum; }
clean_tree() { :; }
