"""KLL quantile sketches of every column (Apache DataSketches), from arrays as pyarrow reads them.

Prints the quantiles, and the KS distance to the sketches of the reference; those are written if they are not there yet.
"""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from datasketches import kll_doubles_sketch

file, k, shares, stored = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), Path(sys.argv[4])
opened = pq.ParquetFile(file)
sketches = {name: kll_doubles_sketch(k) for name in opened.schema_arrow.names}
for batch in opened.iter_batches(batch_size=122_880):
    for name, sketch in sketches.items():
        values = batch.column(name).to_numpy(zero_copy_only=False)
        sketch.update(values[np.isfinite(values)])
kept = {name: sketch.serialize() for name, sketch in sketches.items()}
if not stored.exists():
    stored.write_bytes(pickle.dumps(kept))
reference = {name: kll_doubles_sketch.deserialize(data) for name, data in pickle.loads(stored.read_bytes()).items()}
ranks = [i / 1000 for i in range(1001)]


def distance(then: kll_doubles_sketch, now: kll_doubles_sketch) -> float:
    """KS between two sketches, at a thousand quantiles of either."""
    points = sorted({*then.get_quantiles(ranks), *now.get_quantiles(ranks)})
    return float(np.max(np.abs(np.asarray(then.get_cdf(points)) - np.asarray(now.get_cdf(points)))))


said = {
    "bytes": sum(len(data) for data in kept.values()),
    "ks": {name: distance(reference[name], sketch) for name, sketch in sketches.items()},
    "quantiles": {name: list(sketch.get_quantiles(shares)) for name, sketch in sketches.items()},
}
print(json.dumps(said))
