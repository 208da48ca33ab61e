"""Writes data/train.csv and data/test.csv. Replace the made-up rows by a query of your own.

It is run by hand at the start and by `mlp-ci retrain` before it proposes a retraining; MLP_NOW then says what "now"
is. Keep it repeatable: the same MLP_NOW should write the same rows, so that the same training is not done twice.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent


def main() -> None:
    now = datetime.fromisoformat(os.environ.get("MLP_NOW") or "2026-01-01")
    now = (now.astimezone(UTC) if now.tzinfo else now).replace(tzinfo=None, microsecond=0)
    random = np.random.default_rng(17)
    count = 1000
    rows = pd.DataFrame(
        {
            "order_id": range(count),
            "ordered_at": [now - timedelta(hours=count - n) for n in range(count)],
            "channel": random.choice(["app", "shop", "web"], count),
            "amount": random.gamma(2.0, 40.0, count).round(2),
        }
    )
    chance = 1 / (1 + np.exp(-(rows["amount"] - 90) / 25 - (rows["channel"] == "web")))
    rows["returned"] = (random.random(count) < chance).astype(int)
    test = rows["order_id"] % 5 == 0  # held out: the training command never sees these
    rows[~test].to_csv(HERE / "train.csv", index=False)
    rows[test].to_csv(HERE / "test.csv", index=False)


if __name__ == "__main__":
    main()
