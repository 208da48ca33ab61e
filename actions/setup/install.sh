#!/usr/bin/env bash
# Prints the absolute path of an `mlp-ci` of exactly this checkout's version; the only install code of all actions.
#
#   1. this job installed it already            -> that one (a note in RUNNER_TEMP, which is emptied for every job)
#   2. `mlp-ci` of the same version on PATH     -> that one (a runner image with it baked in, or the sandbox)
#   3. otherwise                                -> a virtual environment of its own in RUNNER_TEMP
#
# The user's Python gets no package. MLP_CI_EXTRAS names the extras to install, by default "train,sweep".
# Exit codes are mlp-ci's: 2 no usable Python, 7 an outside system failed and a retry may help.
set -euo pipefail

fail() { # code, what, why, fix
  printf '%s\n  why: %s\n  fix: %s\n' "$2" "$3" "$4" >&2
  [ "${GITHUB_ACTIONS:-}" != true ] || printf '::error title=mlp-ci setup::%s%%0A%s%%0A%s\n' "$2" "$3" "$4" >&2
  exit "$1"
}

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
root="$(cd "$here/../.." && pwd -P)"
code="$root/mlp_ci/__init__.py"
[ -f "$code" ] || code="$root/../__init__.py" # the copy of the actions inside an installed mlp-ci
wanted="$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$code")"
temp="${RUNNER_TEMP:-${TMPDIR:-/tmp}}"
note="$temp/mlp-ci-binary"
venv="$temp/mlp-ci-venv"

offer() { # path: print it and end, if it is an mlp-ci of the wanted version
  [ -x "$1" ] || return 0
  local found
  found="$("$1" --version 2>/dev/null | head -n 1)" || return 0
  [ "${found##* }" = "$wanted" ] || return 0
  printf '%s\n%s\n' "$wanted" "$1" >"$note"
  printf '%s\n' "$1"
  exit 0
}

if [ -f "$note" ]; then
  { read -r noted && read -r binary; } <"$note" || noted=""
  if [ "$noted" = "$wanted" ] && [ -x "$binary" ]; then
    printf '%s\n' "$binary"
    exit 0
  fi
fi
offer "$(command -v mlp-ci || true)"
offer "$venv/bin/mlp-ci"

python=""
for candidate in python3 python3.13 python3.12 python3.11 python; do
  if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    python="$candidate"
    break
  fi
done
[ -n "$python" ] || fail 2 "No Python 3.11 or newer on this runner (python3: $(python3 --version 2>&1 || true))." \
  "mlp-ci $wanted runs on Python 3.11 or newer, with its venv module, and installs nothing into the system." \
  "Put actions/setup-python with python-version 3.12 before this step, or install python3.11 and python3.11-venv on the runner."

target="$root[${MLP_CI_EXTRAS-train,sweep}]"
[ -n "${MLP_CI_EXTRAS-train,sweep}" ] || target="$root"
echo "mlp-ci $wanted is not on this runner: installing it into $venv with $("$python" --version 2>&1)." >&2
rm -rf "$venv" # what an interrupted install left
"$python" -m venv "$venv" --without-pip >&2 || fail 7 "The virtual environment $venv could not be made." \
  "mlp-ci is installed apart from the user's Python." "Look at the lines above; free disk space on the runner and run the job again."

if command -v uv >/dev/null 2>&1; then
  install=(uv pip install --quiet --python "$venv/bin/python" --constraints "$root/constraints.txt" --compile-bytecode "$target")
else
  # pip takes no folder once any pin has a hash, so here the pins go without their hashes.
  sed -n 's/ *\\$//; /^[A-Za-z0-9]/p' "$root/constraints.txt" >"$temp/mlp-ci-pins.txt"
  "$python" -m ensurepip --version >/dev/null 2>&1 || fail 2 "The Python of this runner has neither uv nor ensurepip." \
    "mlp-ci has to be installed into its own virtual environment." "Install python3-venv (Debian, Ubuntu) or uv on the runner."
  "$venv/bin/python" -m ensurepip --default-pip >/dev/null
  install=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --constraint "$temp/mlp-ci-pins.txt" "$target")
fi
"${install[@]}" >&2 || fail 7 "Installing mlp-ci $wanted failed." \
  "The package index could not be reached or has no file for this Python and platform; the lines above say which." \
  "Run the job again; if it stays so, give the runner access to a package index or bake mlp-ci $wanted into its image."

offer "$venv/bin/mlp-ci"
fail 7 "mlp-ci $wanted was installed into $venv but does not answer to --version." \
  "Without it no action can run." "Run '$venv/bin/mlp-ci --version' on the runner to see why."
