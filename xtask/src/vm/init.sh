#!/bin/busybox sh
# The guest's first process. Lines that begin with the token of this run (the kernel hands it over
# from its command line) are read by `cargo xtask vm`; all else is for people.
# This shell runs busybox's own `ip` whatever PATH says: call the real one by its path.
export PATH=/sbin:/bin HOME=/ TMPDIR=/tmp RELEASECTL_BIN=/tests/releasectl

# It finds its other applets by /proc/self/exe.
/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run

say() {
    # On a line of its own, whatever a test left the cursor at.
    printf '\n%s %s\n' "$vm_token" "$*"
}

step() {
    name=$1
    shift
    say begin "$name"
    "$@" </dev/null
    say exit "$name" $?
}

say linux "$(uname -r)"
while read -r module; do
    insmod "$module" || say exit "$module" $?
done </modules/order
/sbin/ip link set lo up

. /steps
say end
# Let the serial line drain.
sleep 0.2
poweroff -f
