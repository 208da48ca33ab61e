"""NannyML's CBPE: calibrated on each held-out set, then the metrics of the window that belongs to it."""

import json
import sys

import nannyml as nml
import pandas as pd

job = json.loads(sys.argv[1])
found = []
for held_out, window in job["pairs"]:
    reference, analysis = pd.read_parquet(held_out), pd.read_parquet(window)
    for frame in (reference, analysis):
        frame["y_pred"] = (frame["p"] >= 0.5).astype(int)
    estimator = nml.CBPE(
        y_pred_proba="p",
        y_pred="y_pred",
        y_true="y",
        metrics=job["metrics"],
        problem_type="classification_binary",
        chunk_size=len(analysis),
    ).fit(reference)
    result = estimator.estimate(analysis.drop(columns="y")).filter(period="analysis").to_df()
    found.append(
        {m: [float(result[(m, name)].iloc[0]) for name in ("value", "sampling_error")] for m in job["metrics"]}
    )
print(json.dumps(found))
