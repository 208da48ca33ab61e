"""whylogs: a profile of both sides, then its default scores (KS, chi-square) with its default thresholds.

``stored`` in the job names a file: written with the profile of the reference if it is not there, read if it is.
"""

import json
import sys
from pathlib import Path

import pandas as pd
import whylogs as why
from whylogs.core import DatasetProfileView
from whylogs.viz.drift.column_drift_algorithms import calculate_drift_scores

job = json.loads(sys.argv[1])
names = [*job["numbers"], *job["texts"]]
stored = Path(job["stored"]) if job.get("stored") else None


def profile(file: str) -> DatasetProfileView:
    return why.log(pd.read_parquet(file, columns=names)).view()


if stored and stored.exists():
    reference = DatasetProfileView.read(str(stored))
else:
    reference = profile(job["reference"])
    if stored:
        reference.write(str(stored))
found = []
for window in job["windows"]:
    scores = calculate_drift_scores(profile(window), reference, with_thresholds=True)
    flagged = [name for name, score in scores.items() if score and score["drift_category"] == "DRIFT"]
    found.append({"flagged": flagged, "alarm": bool(flagged)})
print(json.dumps(found))
