#!/bin/bash
# PPO on CartPole on all hosts of a TPU pod slice, with one log; and on from its last checkpoint, as the
# same run, after the slice was taken away (spot, preemptible) and you have made it again.
#
# This file has not been run on a TPU: there was none. Its commands are those of Google's handbook; the
# program that it starts is tested on CPUs only.
#
#   start    bash examples/tpu_pod.sh my-slice us-central2-b /mnt/shared --total-steps 4194304
#            what follows the first three goes to the program
#   watch    the same gcloud command as below with --worker=0 --command="tail -f ppo.log"
#   cancel   ... with --worker=all --command="pkill -TERM -f ppo_cartpole.py": it saves, and ends
#   again    the same line as at the start
#
# Type it on your own machine, where `gcloud` is logged in, in any folder.
set -euo pipefail

slice=${1:?the name of the slice} zone=${2:?its zone}
# On a disk that all hosts see and that stays when they go: Filestore, mounted on each of them. Logs and
# checkpoints go there. A disk of a host's own is deleted with it.
folder=${3:?a folder on a disk of all hosts}
shift 3
# The hosts need Python 3.11 or newer; many images have an older one as python3.
python=${PYTHON:-python3.11}

# A slice is several hosts with some of the chips each. A program must start on all of them, by the same
# line: `lerax_dist.initialize()` in it finds the others, through JAX, without any argument.
everywhere() { gcloud compute tpus tpu-vm ssh "$slice" --zone="$zone" --worker=all --command="$1"; }

# The project, as it is here, on each host, with a Python environment of its own.
package=$(mktemp --suffix=.tar.gz)
tar -czf "$package" -C "$(dirname "$0")/.." pyproject.toml README.md LICENSE lerax_dist examples
gcloud compute tpus tpu-vm scp "$package" "$slice:lerax_dist.tar.gz" --zone="$zone" --worker=all
rm "$package"
everywhere "mkdir -p lerax_dist && tar -xzf lerax_dist.tar.gz -C lerax_dist &&
  $python -m venv lerax_dist/.venv &&
  lerax_dist/.venv/bin/pip install --quiet './lerax_dist[examples]' 'jax[tpu]'"

# In the background (nohup, &), so that it goes on when your machine is shut. The name and the folder of
# the checkpoints are the same at each start: by them it finds its run. 32 environments are split over
# all chips; give --num-envs, a multiple of their number, for more.
everywhere "nohup lerax_dist/.venv/bin/python lerax_dist/examples/ppo_cartpole.py --no-console \
  --name ppo-$slice --log-dir $folder/logs --checkpoint-dir $folder/checkpoints/ppo-$slice \
  ${*:+$(printf '%q ' "$@")}>ppo.log 2>&1 </dev/null &"
