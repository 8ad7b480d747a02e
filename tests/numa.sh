#!/bin/sh
# SPDX-License-Identifier: MIT
# numa.sh - check_numa in virtual machines that have several NUMA nodes, and
# check_room in one that has cgroups of version 2
#
# Runs in the folder that was built in.  Needs qemu-system-x86_64 and cpio, no
# KVM and no root.  The kernel is Debian's for clouds, fetched once into
# numa-cache/; the rest of a machine is an initramfs of numa-init, check_numa,
# check_room and the libraries they are linked with.
set -eu
LC_ALL=C
export LC_ALL

build=$PWD
cache=$build/numa-cache
limit=240 # seconds for a machine: what is stuck fails

skip()
{
	echo "numa.sh: skipped: $*"
	exit 77
}

# ------------------------------------------------------------------ the machines
# See check_numa.c.  Each prints arguments for qemu.

# node NUMBER SIZE [,OPTION=VALUE...]: one with memory
node()
{
	echo "-object memory-backend-ram,id=m$1,size=$2" \
		"-numa node,nodeid=$1,memdev=m$1${3-}"
}

# far FROM TO DISTANCE
far()
{
	echo "-numa dist,src=$1,dst=$2,val=$3"
}

# memory INITIATOR TARGET LATENCY BANDWIDTH
memory()
{
	to="initiator=$1,target=$2,hierarchy=memory"
	echo "-numa hmat-lb,$to,data-type=access-latency,latency=$3"
	echo "-numa hmat-lb,$to,data-type=access-bandwidth,bandwidth=$4"
}

# Nobody's nearest are its neighbours by number, and there is not the way back.
machine_four()
{
	echo "-smp 4,sockets=4 -m 1G"
	for i in 0 1 2 3; do
		node $i 256M ,cpus=$i
	done
	far 0 1 40; far 0 2 20; far 0 3 30
	far 1 0 20; far 1 2 30; far 1 3 40
	far 2 0 30; far 2 1 20; far 2 3 40
	far 3 0 40; far 3 1 30; far 3 2 20
}

# The only CPU of node 1 is one that the kernel is told to leave alone.
machine_gap()
{
	echo "-smp 4,sockets=4 -m 768M"
	node 0 256M ,cpus=0
	echo "-numa node,nodeid=1,cpus=1"
	echo "-numa node,nodeid=2,cpus=2"
	node 3 256M ,cpus=3
	node 4 256M
	far 0 1 50; far 0 2 30; far 0 3 40; far 0 4 30
	far 1 2 50; far 1 3 50; far 1 4 50
	far 2 3 20; far 2 4 40
	far 3 4 20
}

machine_hmat()
{
	echo "-machine hmat=on -smp 2,sockets=2 -m 896M"
	node 0 256M ,cpus=0,initiator=0
	node 1 256M ,cpus=1,initiator=1
	node 2 192M ,initiator=0
	node 3 192M ,initiator=1
	memory 0 0 10 10G; memory 0 1 20 5G; memory 0 2 15 40G; memory 0 3 30 20G
	memory 1 0 20 5G; memory 1 1 10 10G; memory 1 2 30 20G; memory 1 3 15 80G
}

machine_full()
{
	echo "-smp 2,sockets=2 -m 832M"
	node 0 704M ,cpus=0
	node 1 128M ,cpus=1
}

machine_cgroup2()
{
	echo "-m 512M"
}

# -------------------------------------------------------------- what they run

fetch_kernel()
{
	for tool in apt-cache apt-get dpkg; do
		command -v $tool >/dev/null || skip "there is no $tool"
	done
	package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
		sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p')
	[ -n "$package" ] || skip "no package has a kernel for clouds"
	rm -rf "$cache/package"
	mkdir -p "$cache/package"
	(cd "$cache/package" && apt-get -q download "$package" &&
		dpkg -x ./*.deb .) >"$cache/log" 2>&1 || {
		cat "$cache/log"
		skip "$package cannot be fetched"
	}
	mv "$cache/package/boot"/vmlinuz-* "$cache/kernel"
	rm -rf "$cache/package"
}

# Libraries keep their paths: programs name ours by the one in this folder.
make_initramfs()
{
	rm -rf "$cache/root"
	mkdir -p "$cache/root"
	cp tests/check_numa tests/check_room "$cache/root"
	cp tests/numa-init "$cache/root/init"
	for lib in $(ldd tests/check_numa tests/check_room tests/numa-init |
		sed -n 's/^[^/]*\(\/[^ ]*\) (.*/\1/p' | sort -u); do
		mkdir -p "$cache/root/${lib%/*}"
		cp -L "$lib" "$cache/root$lib"
	done
	(cd "$cache/root" && find . | cpio -o -H newc -R 0:0 --quiet) |
		gzip -1 >"$cache/initramfs"
}

# ------------------------------------------------------------------ running them

# boot NAME LOG: panic=-1 with -no-reboot ends qemu; without no_timer_check a
# busy host makes the guest panic.  qemu emulates erms, by which the kernel clears
# pages, byte for byte.
boot()
{
	extra=
	program="/check_numa $1"
	case $1 in
	gap) extra=' disable_cpu_apicid=1' ;;
	cgroup2) program=/check_room ;;
	esac
	# shellcheck disable=SC2046 # words
	timeout $limit qemu-system-x86_64 -machine q35 \
		-accel tcg,thread=single -cpu max,-erms -nodefaults \
		-display none -nic none -no-reboot -serial stdio \
		$(machine_"$1") \
		-kernel "$cache/kernel" -initrd "$cache/initramfs" -append \
		"console=ttyS0 quiet panic=-1 numa_balancing=disable no_timer_check$extra -- $program" \
		</dev/null 2>&1 | tr -d '\r' >"$2" || :
}

# Boots once more if the machine never comes up.
run()
{
	boot "$1" "$2"
	grep -q '^numa-init: up$' "$2" || boot "$1" "$2"
}

# passed LOG: everything but this is a failure: tests were run, none failed, the
# kernel had nothing to complain of, and init says so at the very end.
passed()
{
	grep -q '^100%: Checks: [1-9]' "$1" &&
		! grep -Eq 'Kernel panic|Out of memory|BUG:|Oops' "$1" &&
		[ "$(grep -v 'reboot: Power down$' "$1" | tail -n 1)" = \
			'numa-init: passed' ]
}

[ "$(uname -m)" = x86_64 ] || skip "not for this CPU"
command -v qemu-system-x86_64 >/dev/null || skip "there is no qemu-system-x86_64"
command -v cpio >/dev/null || skip "there is no cpio"
mkdir -p "$cache"
[ -e "$cache/kernel" ] || fetch_kernel
make_initramfs
machines=${*:-four gap hmat full cgroup2}
for name in $machines; do
	run "$name" "$cache/$name.log" &
done
wait
failed=
for name in $machines; do
	log=$cache/$name.log
	if passed "$log"; then
		echo "numa.sh: $name: $(grep '^100%: Checks: ' "$log")"
	else
		echo "numa.sh: $name: FAILED; the machine said:"
		sed 's/^/  /' "$log"
		failed="$failed $name"
	fi
done
[ -z "$failed" ] || {
	echo "numa.sh: failed:$failed"
	exit 1
}
