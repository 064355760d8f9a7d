#!/usr/bin/env bash
# Several "hosts" with their own address, hostname, /etc/hosts and loopback on this machine (root only).
#   netns-hosts.sh up N            make hosts 1..N (10.231.77.1 .. N, hostnames lh1 .. lhN); idempotent
#   netns-hosts.sh exec I CMD...   run CMD on host I (same pid: the shell's $! is CMD's own)
#   netns-hosts.sh cut I [link]    cut host I off: its packets vanish without a sign (taken off the bridge),
#                                  with `link` the cable is pulled (carrier lost); heal I undoes both
#   netns-hosts.sh heal I | addr I | status | down
# The hosts are joined by a bridge in a namespace of its own, so nothing of the machine's own network (its
# addresses, routes, forwarding, firewall) is touched, and the hosts cannot reach anything but each other.
# down ends what still runs in the namespaces that this script made, and removes them.
# Settings: NETNS_PREFIX (lh), NETNS_NET (10.231.77), NETNS_DIR (netns-hosts below TMPDIR)
set -uo pipefail
P=${NETNS_PREFIX:-lh} NET=${NETNS_NET:-10.231.77} DIR=${NETNS_DIR:-${TMPDIR:-/tmp}/netns-hosts}
SW=${P}-sw MARK=$DIR/$P.made
die() { echo "netns-hosts: $*" >&2; exit 1; }
has() { [ -e "/run/netns/$1" ]; }
mine() { grep -qsx -- "$1" "$MARK" || die "$1: not made by this script"; }
made() { mkdir -p "$DIR"; grep -qsx -- "$1" "$MARK" || echo "$1" >>"$MARK"; }

up() {
  local n=$1 i
  [ "$n" -ge 1 ] && [ "$n" -le 50 ] || die "up N: 1..50"
  if has "$SW"; then mine "$SW"; else ip netns add "$SW" && made "$SW" || die "cannot make $SW"; fi
  ip -n "$SW" link show br0 >/dev/null 2>&1 || ip -n "$SW" link add br0 type bridge stp_state 0 forward_delay 0 || die "no bridge"
  ip -n "$SW" link set br0 up
  for i in $(seq "$n"); do
    if has "$P$i"; then mine "$P$i"; continue; fi
    made "$P$i"
    ip netns add "$P$i" &&
    ip -n "$P$i" link set lo up &&
    ip -n "$SW" link add "p$i" type veth peer name eth0 netns "$P$i" &&
    ip -n "$SW" link set "p$i" master br0 up &&
    ip -n "$P$i" addr add "$NET.$i/24" dev eth0 &&
    ip -n "$P$i" link set eth0 up || die "cannot make host $i"
  done
  local all; all=$(grep -xE "$P[0-9]+" "$MARK" | sed "s/^$P//" | sort -n)
  { echo "127.0.0.1 localhost"; for j in $all; do echo "$NET.$j $P$j"; done; } >"$DIR/$P.hosts"
}

down() {
  [ -e "$MARK" ] || { echo "netns-hosts: nothing made" >&2; return 0; }
  local x p i
  for x in $(cat "$MARK"); do has "$x" && for p in $(ip netns pids "$x"); do kill -TERM "$p" 2>/dev/null; done; done
  for i in $(seq 30); do
    p=; for x in $(cat "$MARK"); do has "$x" && p="$p$(ip netns pids "$x")"; done
    [ -z "$p" ] && break; sleep 0.1
  done
  for x in $(cat "$MARK"); do
    has "$x" && { for p in $(ip netns pids "$x"); do kill -KILL "$p" 2>/dev/null; done; ip netns del "$x"; }
  done
  rm -f "$MARK" "$DIR/$P.hosts"; rmdir "$DIR" 2>/dev/null; return 0
}

case ${1:-} in
  up) up "${2:?up N}";;
  down) down;;
  exec) i=${2:?exec I CMD}; shift 2; mine "$P$i"
    # not `ip netns exec`: that one mounts a bare /sys, without the cgroups that slurmd wants to see
    exec nsenter --net="/run/netns/$P$i" unshare --uts --mount bash -c \
      'mount --bind "$1" /etc/hosts && hostname "$0" && shift && exec "$@"' "$P$i" "$DIR/$P.hosts" "$@";;
  cut) mine "$P${2:?}"; if [ "${3:-}" = link ]; then ip -n "$SW" link set "p$2" down; else ip -n "$SW" link set "p$2" nomaster; fi;;
  heal) mine "$P${2:?}"; ip -n "$SW" link set "p$2" master br0 up;;
  addr) echo "$NET.${2:?}";;
  status) [ -e "$MARK" ] || { echo "nothing made"; exit 3; }
    for x in $(cat "$MARK"); do echo "$x $(ip -n "$x" -br addr show dev eth0 2>/dev/null | awk '{print $2,$3}') pids: $(ip netns pids "$x" 2>/dev/null | tr '\n' ' ')"; done;;
  *) sed -n '2,13p' "$0"; exit 2;;
esac
