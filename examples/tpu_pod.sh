#!/bin/bash
# PPO on CartPole on all hosts of a TPU pod slice, with one log. After a preemption (spot slices), create
# the slice again and run this again: the run resumes from its last checkpoint.
#
# This file has not been run on a TPU, for lack of one. Its commands are those of Google's documentation;
# the program that it starts is tested on CPUs only.
#
#   start    bash examples/tpu_pod.sh my-slice us-central2-b /mnt/shared --total-steps 4194304
#            arguments after the first three are passed to the program
#   watch    the same gcloud command as below with --worker=0 --command="tail -f ppo.log"
#   cancel   ... with --worker=all --command="pkill -TERM -f ppo_cartpole.py": it saves a checkpoint and exits
#   resume   the same command as for start
#
# Run it on your own machine, where `gcloud` is logged in, in any folder.
set -euo pipefail

slice=${1:?the name of the slice} zone=${2:?its zone}
# Logs and checkpoints go to a file system that all hosts share and that outlives them, such as Filestore,
# mounted on each host. A host's local disk is deleted with the host.
folder=${3:?a folder that all hosts share}
shift 3
# The hosts need Python 3.11 or newer; on many images `python3` is older.
python=${PYTHON:-python3.11}

# A slice has several hosts with some of the chips each, and the same command must start the program on all
# of them. `lerax_dist.initialize()` in the program connects the processes through JAX, without arguments.
everywhere() { gcloud compute tpus tpu-vm ssh "$slice" --zone="$zone" --worker=all --command="$1"; }

# Copy this project to each host, and install it there into a virtual environment.
package=$(mktemp --suffix=.tar.gz)
tar -czf "$package" -C "$(dirname "$0")/.." pyproject.toml README.md LICENSE lerax_dist examples
gcloud compute tpus tpu-vm scp "$package" "$slice:lerax_dist.tar.gz" --zone="$zone" --worker=all
rm "$package"
everywhere "mkdir -p lerax_dist && tar -xzf lerax_dist.tar.gz -C lerax_dist &&
  $python -m venv lerax_dist/.venv &&
  lerax_dist/.venv/bin/pip install --quiet './lerax_dist[examples]' 'jax[tpu]'"

# In the background (nohup, &), so that it continues when your machine is off. It resumes because the name
# and the folder of the checkpoints are the same at each start. 32 environments are split over all chips;
# for more, pass --num-envs, a multiple of the number of chips.
everywhere "nohup lerax_dist/.venv/bin/python lerax_dist/examples/ppo_cartpole.py --no-console \
  --name ppo-$slice --log-dir $folder/logs --checkpoint-dir $folder/checkpoints/ppo-$slice \
  ${*:+$(printf '%q ' "$@")}>ppo.log 2>&1 </dev/null &"
