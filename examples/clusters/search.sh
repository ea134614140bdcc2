#!/bin/bash
# Starts the search of /data/my.yaml on the Ray cluster of this machine, or goes on with it.
# Run it: on a machine of the cluster, as often as you like.
set -eu
study=/data/runs/my
if [ -e "$study" ]; then
  exec evomerge resume "$study"
fi
exec evomerge run /data/my.yaml --dir "$study" --set execution.ray_address=auto
