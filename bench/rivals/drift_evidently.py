"""Evidently's preset for data drift as it comes: columns drift by their own thresholds, the data when half do."""

import json
import sys

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

job = json.loads(sys.argv[1])
names = [*job["numbers"], *job["texts"]]
definition = DataDefinition(numerical_columns=job["numbers"], categorical_columns=job["texts"])


def read(file: str) -> Dataset:
    return Dataset.from_pandas(pd.read_parquet(file, columns=names), data_definition=definition)


reference, found = read(job["reference"]), []
for window in job["windows"]:
    snapshot = Report([DataDriftPreset()]).run(read(window), reference)
    flagged, share = [], 0.0
    for metric in snapshot.dict()["metrics"]:
        config = metric["config"]
        if config["type"].endswith("DriftedColumnsCount"):
            share = metric["value"]["share"]
        elif config["type"].endswith("ValueDrift"):
            value, limit = metric["value"], config["threshold"]
            if value < limit if "p_value" in config["method"] else value >= limit:
                flagged.append(config["column"])
    found.append({"flagged": flagged, "alarm": share >= 0.5})
print(json.dumps(found))
