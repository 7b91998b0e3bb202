#!/bin/sh
# A container without an engine: a read-only root made of this machine's own files, process 1, user 10001, no rights.
# Runs as root within `unshare --mount --pid --fork`: boxed.sh ROOT DATA PYTHON SITE REPOSITORY COMMAND...
set -eu
root=$1 data=$2 python=$3 site=$4 repository=$5
shift 5
mount --make-rprivate /
mount -t tmpfs -o size=16m,mode=755 boxed "$root"
see() { # FROM TO: visible, and not writable
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    mount -o remount,bind,ro "$root$2"
}
for folder in /usr /etc; do see "$folder" "$folder"; done
for folder in /bin /lib /lib64 /sbin; do
    if [ -L "$folder" ]; then ln -s "$(readlink "$folder")" "$root$folder"; elif [ -d "$folder" ]; then see "$folder" "$folder"; fi
done
see "$python" /opt/python
see "$site" /opt/site
for package in app agents tables; do see "$repository/$package" "/opt/vault-stream/$package"; done
mkdir -p "$root/data" "$root/tmp" "$root/proc" "$root/dev"
mount --bind "$data" "$root/data"
mount -t tmpfs -o size=64m,mode=1777 boxed "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -o remount,ro "$root"
cd /
exec chroot "$root" /usr/bin/setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs \
    --inh-caps=-all --bounding-set=-all -- "$@"
