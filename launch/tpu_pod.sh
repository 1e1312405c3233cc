#!/usr/bin/env bash
# Trains on every host of a TPU pod slice, one process each; jax finds the rest.
#
#   launch/tpu_pod.sh NAME ZONE --config=configs/vit.py:b16,imagenet2012 \
#       --workdir=/mnt/runs/vit_b16
#
# The workdir lies on a file system that all hosts mount, such as Filestore or
# a bucket through gcsfuse. The same command again goes on where it stopped.
set -euo pipefail

if (($# < 3)); then
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 1
fi
name=$1 zone=$2
shift 2
# Where the repository and its .venv, with requirements-tpu.txt, are on a host.
home=${VIT_JAX_HOME:-vit_jax}

printf -v train ' %q' "$@"
gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
  --command="cd $home && .venv/bin/python -m vit_jax.main$train"
