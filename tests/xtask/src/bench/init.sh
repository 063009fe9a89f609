#!/bin/busybox sh
# /init of the benchmarks' guest: runs each piece of work named in Q_LIST between two marks on the first serial port.
#
# Q_LIST (names, comma-separated) and Q_SCALE (per cent of the work) come from the kernel's command line. Every piece
# prints one word: a checksum of what it computed, if anything, so that a machine that computes otherwise is found out.
/bin/busybox --install -s /bin
export PATH=/bin LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o size=80% tmp /tmp
exec </dev/ttyS0 >/dev/ttyS0 2>&1
echo "@@BOOTED"
cd /tmp
. /work.sh
for name in $(echo "$Q_LIST" | tr , ' '); do
	"prepare_$name"
	echo "@@START $name"
	word=$("work_$name")
	echo "@@END $name $word"
	"clean_$name"
done
echo "@@DONE"
sleep 1
poweroff -f
