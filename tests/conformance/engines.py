"""The engines that the cases run on, by name. All tests on Spark share one worker: its start takes seconds."""

from __future__ import annotations

import pytest

SPARK = [pytest.mark.xdist_group("spark"), pytest.mark.slow]
TYPED = ["duckdb-parquet", "sqlite", "postgres", pytest.param("spark-parquet", marks=SPARK)]
CSV = ["duckdb-csv", pytest.param("spark-csv", marks=SPARK)]
