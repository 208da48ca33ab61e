"""The tests that most people write: two-sample KS and chi-square for each column, an alarm at p < 0.05 in any."""

import json
import sys

import pandas as pd
from scipy import stats

job = json.loads(sys.argv[1])
reference, found = pd.read_parquet(job["reference"]), []
for file in job["windows"]:
    window = pd.read_parquet(file)
    p_values = {n: stats.ks_2samp(reference[n].dropna(), window[n].dropna()).pvalue for n in job["numbers"]}
    for name in job["texts"]:
        counts = pd.concat([reference[name].value_counts(), window[name].value_counts()], axis=1).fillna(0)
        p_values[name] = stats.chi2_contingency(counts.T.to_numpy()).pvalue
    flagged = [name for name, p_value in p_values.items() if p_value < 0.05]
    found.append({"flagged": flagged, "alarm": bool(flagged)})
print(json.dumps(found))
