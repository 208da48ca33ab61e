"""The demo, once round the whole loop (at most 5 minutes after installation), with the share of every step.

There is no rival to run beside it: nobody else's loop comes with a GitHub to run it on.
"""

from __future__ import annotations

import json
import subprocess
import sys


def main() -> None:
    """Run `mlp-ci sandbox demo` as a newcomer would, and read its report."""
    command = [sys.executable, "-m", "mlp_ci", "sandbox", "demo", "--format", "json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    report = json.loads(done.stdout)["data"]
    told = sum(step["seconds"] for step in report["steps"])
    for step in report["steps"]:
        print(f"  {step['seconds']:6.1f} s  {step['seconds'] / report['seconds']:5.0%}  {step['title']}")
    rest = report["seconds"] - told
    print(f"  {rest:6.1f} s  {rest / report['seconds']:5.0%}  starting the forge, the runner and MLflow")
    print(f"the whole loop   {report['seconds']:6.1f} s   must be ≤ 300 s")


if __name__ == "__main__":
    main()
