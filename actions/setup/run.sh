#!/usr/bin/env bash
# Runs one mlp-ci command for a composite action: run.sh <command>. Options come from MLP_CI_<OPTION> in the
# environment, which the command line reads itself, so nothing from outside is ever built into a line of shell.
set -euo pipefail

mlp_ci="$(bash "$(dirname "${BASH_SOURCE[0]}")/install.sh")"
# An empty input means "not given"; so the job's own MLFLOW_TRACKING_URI stands unless the input names another.
[ -z "${MLP_CI_TRACKING_URI:-}" ] || export MLFLOW_TRACKING_URI="$MLP_CI_TRACKING_URI"

status=0
"$mlp_ci" "$@" || status=$?
[ "$status" != 4 ] || status=0 # "nothing to do" is a good end of a job; the output `outcome` tells it apart
exit "$status"
