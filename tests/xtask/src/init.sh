#!/bin/busybox sh
# /init of the tests' guests: a shell on the first serial port.
#
# `Q_RUN="COMMANDS"` on the kernel's command line (which hands words it does not know to init) runs commands before
# the shell; `Q_OFF=1` powers off after them. "quintet: ready" is what tests wait for.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp TERM=vt100
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec </dev/ttyS0 >/dev/ttyS0 2>&1
for module in /lib/modules/*.ko; do
	[ ! -e "$module" ] || insmod "$module"
done
echo "quintet: $(uname -sr) $(uname -m), $(grep -c ^processor /proc/cpuinfo) cpu, $(sed -n 's/MemTotal: *//p' /proc/meminfo)"
echo "quintet: ready"
[ -z "$Q_RUN" ] || eval "$Q_RUN"
[ -z "$Q_OFF" ] || poweroff -f
export PS1='quintet# '
while :; do
	setsid cttyhack sh
done
