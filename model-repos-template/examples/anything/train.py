"""Trains a model that is no Python: a folder with a program `predict` that reads CSV and prints a number per row.

This file happens to be Python; the command in model.yaml may be anything. The training contract:

gets    MLP_DATA_TRAIN, MLP_PARAMS (paths), MLP_SEED; MLP_CHECKPOINTS: a folder that a resumed training finds again
leaves  $MLP_OUTPUT/model with a program `predict` in it and whatever that needs, and, if it likes, numbers in
        $MLP_OUTPUT/metrics.json

`predict` is started in its folder. It gets CSV with a header line on standard input: the columns of model.yaml without
key, time and target, in that order. It prints one line per row: a number (here the probability), or a class.
"""

import csv
import json
import os
from collections import Counter
from pathlib import Path

# How often orders of this channel and of about this amount came back: a table, looked up by awk.
PREDICT = """\
#!/usr/bin/awk -f
BEGIN { FS = ","; while ((getline line < "rates.csv") > 0) { split(line, p, ","); rate[p[1] "," p[2]] = p[3] } }
NR > 1 { key = $1 "," int($2 / WIDTH); print (key in rate) ? rate[key] : OVERALL }
"""


def main() -> None:
    width = json.loads(Path(os.environ["MLP_PARAMS"]).read_text())["bin_width"]
    with Path(os.environ["MLP_DATA_TRAIN"]).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    count, returned = Counter(), Counter()
    for row in rows:
        key = (row["channel"], int(float(row["amount"] or 0) // width))
        count[key] += 1
        returned[key] += int(row["returned"])
    overall = sum(returned.values()) / len(rows)

    model = Path(os.environ["MLP_OUTPUT"]) / "model"
    model.mkdir(parents=True, exist_ok=True)
    # Two orders at the overall rate are added, so that a bin with one order is not sure of anything.
    lines = [f"{c},{b},{(returned[c, b] + 2 * overall) / (count[c, b] + 2):.6f}" for c, b in sorted(count)]
    (model / "rates.csv").write_text("\n".join(lines) + "\n")
    program = model / "predict"
    program.write_text(PREDICT.replace("WIDTH", str(width)).replace("OVERALL", f"{overall:.6f}"))
    program.chmod(0o755)
    metrics = {"train_rows": len(rows), "bins": len(count)}
    (model.parent / "metrics.json").write_text(json.dumps(metrics))


if __name__ == "__main__":
    main()
