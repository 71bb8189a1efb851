#!/usr/bin/env bash
# A real S3 storage for tests: Ceph's radosgw over one OSD in memory, from Debian's packages.
# usage: radosgw.sh DIR PORT MONITOR_PORT     returns when it responds
# The processes' ids are in DIR/*.pid. Everything is lost when they end.
set -euo pipefail
D=${1:?} PORT=${2:?}
MON=${3:?}
AS=()
if [ "$(id -u)" = 0 ]; then AS=(setpriv --reuid=nobody --regid="$(id -g nobody)" --clear-groups); fi
mkdir -p "$D"/{mon,osd,rgw,run,log}
cat > "$D/ceph.conf" <<C
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon host = v2:127.0.0.1:$MON
public addr = 127.0.0.1
run dir = $D/run
log file = $D/log/\$name.log
admin socket = $D/run/\$name.asok
pid file = $D/run/\$name.pid
keyring = $D/keyring
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 1
[mon]
mon data = $D/mon
mon cluster log file = $D/log/cluster.log
[osd]
osd data = $D/osd
osd objectstore = memstore
memstore device bytes = ${STOA_TEST_S3_BYTES:-8589934592}
[client.rgw]
rgw data = $D/rgw
rgw frontends = beast endpoint=127.0.0.1:$PORT
rgw enable usage log = false
rgw enable ops log = false
rgw gc max objs = 1
rgw lc max objs = 1
rgw thread pool size = 32
C
as() { ${AS[@]+"${AS[@]}"} env HOME="$D" CEPH_CONF="$D/ceph.conf" "$@"; }
run() {
  local name=$1
  shift
  (exec ${AS[@]+"${AS[@]}"} env HOME="$D" CEPH_CONF="$D/ceph.conf" nohup "$@" > "$D/log/$name.out" 2>&1 < /dev/null) &
  echo $! > "$D/$name.pid"
}
ceph-authtool --create-keyring "$D/keyring" --gen-key -n mon. --cap mon 'allow *' > /dev/null
ceph-authtool "$D/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' > /dev/null
ceph-authtool "$D/keyring" --gen-key -n osd.0 --cap mon 'allow profile osd' --cap osd 'allow *' > /dev/null
ceph-authtool "$D/keyring" --gen-key -n client.rgw --cap mon 'allow rw' --cap osd 'allow rwx' > /dev/null
monmaptool --create --fsid "$(sed -n 's/^fsid = //p' "$D/ceph.conf")" --addv a "[v2:127.0.0.1:$MON]" "$D/monmap" > /dev/null
if [ "$(id -u)" = 0 ]; then chown -R nobody "$D"; fi
as ceph-mon --mkfs -i a --monmap "$D/monmap" --keyring "$D/keyring"
run mon ceph-mon -f -i a
for _ in $(seq 100); do as timeout 5 ceph --connect-timeout 2 mon stat > /dev/null 2>&1 && break; sleep 0.2; done
osd=$(cat /proc/sys/kernel/random/uuid)
as ceph osd new "$osd" 0 > /dev/null
as ceph-osd -i 0 --mkfs --osd-uuid "$osd" --keyring "$D/keyring" > "$D/log/mkfs.out" 2>&1
run osd ceph-osd -f -i 0
run rgw radosgw -f -n client.rgw
for user in stoa other; do
  as timeout 60 radosgw-admin user create --uid=$user --display-name=$user --access-key=$user --secret-key=$user-secret > "$D/log/$user.out"
done
for _ in $(seq 300); do
  if (exec 3<> "/dev/tcp/127.0.0.1/$PORT") 2> /dev/null; then exit 0; fi
  sleep 0.1
done
echo 'radosgw does not respond' >&2
tail -5 "$D"/log/*.log >&2
exit 1
