#!/bin/bash
# The script of a Slurm job, in the run folder of its attempt. Its arguments are the seconds without a sign of the worker
# after which nobody follows the attempt, and the command of each node.
silence=$1
shift
set -o noclobber

# Slurm goes to /tmp where it cannot go to the run folder.
if [[ ! -e recipe.json ]]; then
    echo "Slurm job $SLURM_JOB_ID ends: this node does not see its run folder"
    exit 76
fi
# An attempt is for one start alone: a controller that was killed may start a job twice, and a lost reply submit it twice.
# `superseded` and `stop` say that no start is wanted any more.
if [[ -e superseded || -e stop ]] || ! { echo "$SLURM_JOB_ID" > slurm_job; } 2> /dev/null; then
    echo "Slurm job $SLURM_JOB_ID ends: this attempt is over, or another start has it"
    exit 76
fi
# Both times are the file system's. Reading a file makes NFS ask its server for its time.
alive=$(cat worker_alive && stat --format=%Y worker_alive)
if (( $(stat --format=%Y slurm_job) - ${alive:-0} > silence )); then
    echo "Slurm job $SLURM_JOB_ID ends: its worker has given no sign of life for $silence s"
    exit 76
fi
address=$(scontrol show node "$SLURMD_NODENAME" --oneliner | grep -o ' NodeAddr=[^ ]*')
address=${address#*=}
export FINETUNED_HEAD=${address:-$(hostname)}:$((20000 + SLURM_JOB_ID % 10000))
# Since Slurm 22.05 a step does not take it from its job.
[[ -n $SLURM_CPUS_PER_TASK ]] && export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

trap : TERM # for the ranks, which save
# Without --kill-on-bad-exit: one node's launcher may exit while a rank of another saves.
srun --export=ALL --ntasks-per-node=1 --kill-on-bad-exit=0 --wait=30 "$@" &
while kill -0 $! 2> /dev/null; do
    wait $!
    code=$?
done
echo "$code" > slurm_exit
exit "$code"
