#!/usr/bin/env bash
# A Slurm of one node in folder DIR, with what `apt-get install slurm-wlm munge` brings, for tests and to
# try things by hand: `infra/slurm-dev.sh DIR`, then `export SLURM_CONF=DIR/slurm.conf`. Prints `ready`
# and runs until its stdin is closed (Ctrl-D). Needs no root; jobs run as whoever starts it.
set -euo pipefail
dir=$(mkdir -p "${1:?a folder}" && cd "$1" && pwd)
# The first of two ports.
port=${2:-16817}
PATH=$PATH:/usr/sbin

for program in munged slurmctld slurmd sbatch; do
    command -v "$program" >/dev/null || {
        echo "no $program: apt-get install slurm-wlm munge" >&2
        exit 69
    }
done

umask 022
mkdir -p "$dir"/{state,spool,log}
# munged takes keys and folders only where nobody else may write.
(umask 077 && head -c 1024 /dev/urandom >"$dir/munge.key")
user=$(id -un)
cat >"$dir/slurm.conf" <<END
ClusterName=dev
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=5
MinJobAge=3600
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldPort=$port
SlurmdPort=$((port + 1))
NodeName=$(hostname) NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
END
export SLURM_CONF=$dir/slurm.conf

pids=()
# Jobs first: a step that ends without a controller to tell keeps slurmd, which waits for it.
stop() {
    scancel --user="$user" 2>/dev/null || :
    for _ in $(seq 100); do
        [ -n "$(squeue --noheader 2>/dev/null)" ] || break
        sleep 0.2
    done
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || :; done
    for _ in $(seq 50); do
        kill -0 "${pids[@]}" 2>/dev/null || break
        sleep 0.1
    done
    for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || :; done
    wait
}
trap stop EXIT
trap 'exit 143' TERM INT
munged --foreground --force --socket="$dir/munge.socket" --key-file="$dir/munge.key" \
    --pid-file="$dir/munged.pid" --seed-file="$dir/munged.seed" </dev/null >"$dir/log/munged.log" 2>&1 &
pids+=($!)
until [ -S "$dir/munge.socket" ]; do
    kill -0 $! 2>/dev/null || { cat "$dir/log/munged.log" >&2; exit 70; }
    sleep 0.1
done
slurmctld -D -i -L "$dir/log/slurmctld.log" </dev/null >/dev/null 2>&1 &
pids+=($!)
slurmd -D -L "$dir/log/slurmd.log" </dev/null >/dev/null 2>&1 &
pids+=($!)
until [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ]; do
    for pid in "${pids[@]}"; do
        kill -0 "$pid" 2>/dev/null || { tail -n 5 "$dir"/log/*.log >&2; exit 70; }
    done
    sleep 0.2
done
echo ready
cat >/dev/null
