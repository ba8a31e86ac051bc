# The host that tests deploy to: this machine's files, with /etc, /opt, /run and logs of its own, in namespaces that the
# caller has made (mount, pid, network). Ends as pid 1 of it: sshd, or systemd with sshd as its only service.
#
#   boot.sh sshd|systemd FILES SSHD LIBRARIES PROGRAMS      FILES: a folder with sshd_config, key.pub and room for what is
#                                                           mounted; PROGRAMS: a folder that the host has, too
set -e
kind=$1 files=$2 sshd=$3 libraries=$4 programs=$5
mount --make-rprivate /
mount -t proc proc /proc
mkdir -p "$files/etc"
cp -a /etc/. "$files/etc"
mount --bind "$files/etc" /etc
for folder in /opt /run /var/log /var/tmp; do mount -t tmpfs tmpfs "$folder"; done
# What the host makes in /tmp (mktemp, PrivateTmp) is its own, too; what it is given there stays in its place.
mkdir /run/tmp
mount --bind /tmp /run/tmp
mount -t tmpfs tmpfs /tmp
chmod 1777 /tmp /var/tmp
for folder in "$files" "$programs"; do
    case $folder in /tmp/*) mkdir -p "$folder" && mount --bind "/run$folder" "$folder" ;; esac
done
umount /run/tmp
mkdir -p /run/sshd /etc/sysusers.d
# sshd wants a user for its unprivileged half, and a root that is not locked.
grep -q '^sshd:' /etc/passwd || echo 'sshd:x:64999:65534::/run/sshd:/usr/sbin/nologin' >>/etc/passwd
sed -i 's/^root:[^:]*:/root:*:/' /etc/shadow
# A shell that reads nothing of this machine's root at every command: what that starts may leave locks in its home.
sed -i 's|^\(root:.*:\)[^:]*$|\1/bin/sh|' /etc/passwd
if [ "$kind" = sshd ]; then
    LD_LIBRARY_PATH=$libraries exec "$sshd" -D -e -f "$files/sshd_config"
fi

rm -rf /etc/systemd/system
mkdir -p /etc/systemd/system "$files/units"
for target in sysinit basic shutdown multi-user network-online; do
    printf '[Unit]\nDefaultDependencies=no\n' >"$files/units/$target.target"
done
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\nWants=sshd-test.service\n' >"$files/units/default.target"
cat >"$files/units/sshd-test.service" <<END
[Service]
Environment=LD_LIBRARY_PATH=$libraries
RuntimeDirectory=sshd
RuntimeDirectoryPreserve=yes
ExecStart=$sshd -D -e -f $files/sshd_config
END
# None of this machine's own units: they would see to its disks and clocks.
mount --bind "$files/units" /lib/systemd/system
umount -l /sys/fs/cgroup 2>/dev/null || :
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec env -i container=feedhandler-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --show-status=0
