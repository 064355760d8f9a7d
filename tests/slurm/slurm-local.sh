#!/usr/bin/env bash
# A real SLURM on this one machine for the tests: munged, slurmctld and several slurmd. Needs root.
#
#   slurm-local.sh start|stop|status
#
# Clients (srun, sbatch, ...) find it by SLURM_CONF=$SLURM_LOCAL_DIR/slurm.conf. `start` installs what is
# missing by apt-get (Debian, Ubuntu) and waits until the nodes are idle; `stop` ends what was started.
# Settings, all environment variables:
#   SLURM_LOCAL_DIR    where everything of it lies; a short path, since a socket's may have 107 letters
#   SLURM_LOCAL_PORT   of slurmctld; the nodes' are the next ones
#   SLURM_LOCAL_JOB    the first job's id (1). JAX's port is 61440 + id % 4096: two SLURMs on one
#                      machine must not count through the same ids
#   SLURM_LOCAL_NODES  number of nodes (2), which are called 127.0.0.1, 127.0.0.2, ...: names that
#                      resolve without an entry in /etc/hosts
#   SLURM_LOCAL_CPUS   cores that each node claims to have (32)
#   SLURM_LOCAL_GPUS   GPUs likewise (4)
set -uo pipefail
dir=${SLURM_LOCAL_DIR:?} port=${SLURM_LOCAL_PORT:?} job=${SLURM_LOCAL_JOB:-1}
nodes=${SLURM_LOCAL_NODES:-2} cpus=${SLURM_LOCAL_CPUS:-32} gpus=${SLURM_LOCAL_GPUS:-4}
patience=60 # seconds to wait for anything
export SLURM_CONF=$dir/slurm.conf

say() { echo "slurm-local: $*" >&2; }
die() {
  say "$*"
  tail -n 20 "$dir"/log/* >&2
  exit 1
}
ask() { timeout 5 "$@" 2>/dev/null; }
names() { for i in $(seq "$nodes"); do echo "127.0.0.$i"; done; }

install_missing() {
  [ -x /usr/sbin/slurmctld ] && [ -x /usr/sbin/slurmd ] && [ -x /usr/sbin/munged ] && [ -x /usr/bin/srun ] && return
  # Two of these may start at once.
  exec 8>"${TMPDIR:-/tmp}/slurm-local-install.lock" && flock -w 500 8
  [ -x /usr/sbin/slurmctld ] && [ -x /usr/bin/srun ] && exec 8>&- && return
  say "installing slurmctld slurmd slurm-client munge by apt-get"
  local made=
  if [ ! -e /usr/sbin/policy-rc.d ]; then # else the packages would start services of their own
    made=1
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
  fi
  export DEBIAN_FRONTEND=noninteractive
  timeout 120 apt-get -o DPkg::Lock::Timeout=100 update >"$dir/log/apt.log" 2>&1 </dev/null
  timeout 300 apt-get -o DPkg::Lock::Timeout=200 install -y --no-install-recommends \
    slurmctld slurmd slurm-client munge >>"$dir/log/apt.log" 2>&1 </dev/null
  local status=$?
  [ -n "$made" ] && rm -f /usr/sbin/policy-rc.d
  exec 8>&-
  [ $status = 0 ] || die "apt-get failed ($status)"
}

configure() {
  local host
  host=$(hostname -s)
  cat >"$SLURM_CONF" <<CONF
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job may start again when the credential of its first start has expired; 120 s by default.
AuthInfo=socket=$dir/run/munge.socket,cred_expire=5
CredType=cred/munge
FirstJobId=$job
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
TmpFS=$dir
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PropagateResourceLimits=NONE
ReturnToService=2
# As many cores as the next lines say, not as many as there are.
SlurmdParameters=config_overrides
SlurmdTimeout=20
KillWait=20
CompleteWait=0
MinJobAge=3600
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1
DependencyParameters=kill_invalid_depend
JobRequeue=1
MailProg=/bin/true
GresTypes=gpu
CONF
  # No part of this SLURM uses control groups, but the daemon wants to see some unless told of the old
  # kind. Containers may have none.
  echo "CgroupPlugin=cgroup/v1" >"$dir/cgroup.conf"
  local i=0 name
  for name in $(names); do
    i=$((i + 1))
    echo "NodeName=$name NodeHostname=$host NodeAddr=$name Port=$((port + i)) CPUs=$cpus Gres=gpu:$gpus"
  done >>"$SLURM_CONF"
  echo "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP" >>"$SLURM_CONF"
  # SLURM wants to see a device for each GPU, and numbers them in this order; nothing opens them.
  for i in $(seq 0 $((gpus - 1))); do ln -sf /dev/null "$dir/gpu$i"; done
  echo "Name=gpu File=$dir/gpu[0-$((gpus - 1))]" >"$dir/gres.conf"
}

# alive PIDFILE WORD: whether the process of the file lives and has the word in its command line
alive() {
  local pid
  pid=$(tr -dc 0-9 2>/dev/null <"$1") && [ -n "$pid" ] || return 1
  tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$2"
}

# end PIDFILE WORD: TERM, and KILL after 10 s. One that has ended may stay a zombie for seconds.
end() {
  local pid
  if alive "$1" "$2" && pid=$(tr -dc 0-9 <"$1") && kill -TERM "$pid" 2>/dev/null; then
    for _ in $(seq 100); do alive "$1" "$2" && sleep 0.1; done
    alive "$1" "$2" && kill -KILL "$pid" 2>/dev/null
  fi
  rm -f "$1"
}

start() {
  mkdir -p "$dir"/{log,run,state,spool} || die "cannot make $dir"
  chmod 755 "$dir" "$dir/run"
  install_missing
  configure
  ulimit -c 0 # tasks inherit it, and a JAX process that aborts would leave a core of 250 MB
  (umask 077 && head -c 128 /dev/urandom >"$dir/munge.key")
  # --force: the folders need not be as the system's munge wants them.
  /usr/sbin/munged --force --key-file="$dir/munge.key" --socket="$dir/run/munge.socket" \
    --pid-file="$dir/run/munged.pid" --log-file="$dir/log/munged.log" --seed-file="$dir/munge.seed" \
    --num-threads=2 2>"$dir/log/munged.err" || die "munged did not start"
  /usr/sbin/slurmctld -i || die "slurmctld did not start"
  local name
  for name in $(names); do
    mkdir -p "$dir/spool/$name"
    /usr/sbin/slurmd -N "$name" || die "slurmd of $name did not start"
  done
  local late=$((SECONDS + patience))
  until [ "$(ask sinfo -h -N -t idle -o %N | sort -u | wc -l)" = "$nodes" ]; do
    [ $SECONDS -lt $late ] || { ask sinfo -N -l >&2; die "the nodes are not idle after $patience s"; }
    sleep 0.2
  done
}

stop() {
  [ -d "$dir/run" ] || return 0
  if alive "$dir/run/slurmctld.pid" slurmctld; then
    ask scancel --quiet --full -u root
    local late=$((SECONDS + 15))
    while [ -n "$(ask squeue -h)" ] && [ $SECONDS -lt $late ]; do sleep 0.2; done
  fi
  end "$dir/run/slurmctld.pid" slurmctld
  local file
  for file in "$dir"/run/slurmd-*.pid; do [ -e "$file" ] && end "$file" "slurmd -N"; done
  end "$dir/run/munged.pid" munged
  # What a slurmd that died has left: its slurmstepd and the tasks of this SLURM.
  local pid
  grep -lszx -- "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ | cut -d/ -f3 | while read -r pid; do
    if grep -qsz '^SLURMD_NODENAME=' "/proc/$pid/environ" ||
      [[ $(readlink "/proc/$pid/exe") = */slurmstepd* ]]; then
      say "ending process $pid, which was left over"
      kill -KILL "$pid" 2>/dev/null
    fi
  done
  rm -rf "$dir/run" "$dir/state" "$dir/spool" # what is left are the settings and the logs
}

case ${1:-} in
  start) start ;;
  stop) stop ;;
  status) ask sinfo -N -l && ask squeue ;;
  *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
