#!/bin/bash
# A search on four nodes of a SLURM cluster: Ray is started on each, the first one drives.
# Run it: sbatch slurm.sh; submitted again, by the time limit or by hand, it goes on.
#SBATCH --job-name=merge
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --signal=B:INT@120
#SBATCH --requeue
set -eu
study=$HOME/runs/my
port=6379
export HF_HUB_OFFLINE=1 RAY_worker_niceness=0
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(openssl rand -hex 32)}

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${hosts[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}'):$port

srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
  ray start --head --node-ip-address="${address%:*}" --port="$port" --block &
sleep 20
srun --nodes=$((${#hosts[@]} - 1)) --ntasks=$((${#hosts[@]} - 1)) --exclude="$head" --overlap \
  ray start --address="$address" --block &
sleep 20

if [ -e "$study" ]; then
  command=(evomerge resume "$study" --set "execution.ray_address=$address")
else
  command=(evomerge run "$HOME/my.yaml" --dir "$study" --set "execution.ray_address=$address")
fi
srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap "${command[@]}" &
driver=$!
# Two minutes before the limit: finish what runs and stop. To evomerge TERM is as INT, which jobs in the background ignore.
trap 'kill -TERM "$driver"; wait "$driver"' INT
wait "$driver"
