"""NannyML's univariate drift: Jensen-Shannon per chunk, an alarm above mean + 3 deviations of the reference's chunks.

Its default is ten chunks; the window is cut into chunks of the same size, as distances grow when chunks get smaller.
``stored`` in the job names a file: written with the fitted calculator if it is not there, read if it is.
"""

import json
import pickle
import sys
from pathlib import Path

import nannyml as nml
import pandas as pd

job = json.loads(sys.argv[1])
names = [*job["numbers"], *job["texts"]]
stored = Path(job["stored"]) if job.get("stored") else None
if stored and stored.exists():
    calculator = pickle.loads(stored.read_bytes())
else:
    reference = pd.read_parquet(job["reference"], columns=names)
    chunker = nml.SizeBasedChunker(chunk_size=max(1, len(reference) // 10), incomplete="append")
    calculator = nml.UnivariateDriftCalculator(column_names=names, treat_as_categorical=job["texts"], chunker=chunker)
    calculator.fit(reference)
    if stored:
        stored.write_bytes(pickle.dumps(calculator))
found = []
for window in job["windows"]:
    result = calculator.calculate(pd.read_parquet(window, columns=names)).filter(period="analysis").to_df()
    alarms = result.xs("alert", axis=1, level=-1).any()
    flagged = sorted({name for (name, *_), alarm in alarms.items() if alarm})
    found.append({"flagged": flagged, "alarm": bool(flagged)})
print(json.dumps(found))
