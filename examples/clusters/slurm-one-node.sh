#!/bin/bash
# A search on one node of a SLURM cluster, with all its GPUs.
# Run it: sbatch slurm-one-node.sh; submitted again, it goes on.
#SBATCH --job-name=merge
#SBATCH --gres=gpu:4
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --signal=INT@120
export HF_HUB_OFFLINE=1
if [ -e runs/my ]; then
  srun evomerge resume runs/my
else
  srun evomerge run my.yaml --dir runs/my
fi
