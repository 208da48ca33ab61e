#!/usr/bin/env bash
# Runs one mlp-ci command for a composite action: run.sh <command>. Options come from MLP_CI_<OPTION> in the
# environment, which the command line reads itself, so nothing from outside is ever built into a line of shell.
set -euo pipefail

mlp_ci="$(bash "$(dirname "${BASH_SOURCE[0]}")/install.sh")"
# An empty input means "not given"; so the job's own MLFLOW_TRACKING_URI stands unless the input names another.
[ -z "${MLP_CI_TRACKING_URI:-}" ] || export MLFLOW_TRACKING_URI="$MLP_CI_TRACKING_URI"

# A cancelled job: GitHub signals this shell alone, and kills everything ten seconds later. A shell that waits for a
# program passes nothing on, so mlp-ci runs beside it, and is told. A signal that comes before it runs ends the shell.
trap 'heard=yes; kill -TERM "$!" 2>/dev/null || true' INT TERM
"$mlp_ci" "$@" <&0 &
heard=yes
while [ -n "$heard" ]; do # a signal ends `wait`, not what it waits for: only an undisturbed one tells how that ended
  heard="" status=0
  wait "$!" || status=$?
done
[ "$status" != 4 ] || status=0 # "nothing to do" is a good end of a job; the output `outcome` tells it apart
exit "$status"
