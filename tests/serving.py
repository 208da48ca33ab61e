"""Small real models and a load generator for the tests of serving."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.predicting import save

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ("distance", "hour", "carrier")
ROW = {"distance": 100.0, "hour": 7, "carrier": "UA"}
LOGGED = {"distance": "float", "hour": "int", "carrier": "string", "flight_id": "string"}


def save_model(folder: Path, *, far_is_late: bool = True, fails: bool = False) -> Path:
    """Save a classifier of flights with MLflow; ``far_is_late`` decides which way it answers."""
    import mlflow.sklearn
    import numpy as np
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder
    from sklearn.tree import DecisionTreeClassifier

    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "distance": rng.uniform(0, 5000, 200),
            "hour": rng.integers(0, 24, 200),
            "carrier": rng.choice(["UA", "AA"], 200),
        }
    )
    late = ((rows.distance > 2500) == far_is_late).astype(int)
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["carrier"]), remainder="passthrough")
    model: Any = make_pipeline(encode, DecisionTreeClassifier(max_depth=2)).fit(rows, late)
    if fails:

        class Broken(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
            """Answers its input example and nothing else."""

            classes_ = np.array([0, 1])

            def fit(self, _rows: Any, _labels: Any) -> Any:
                return self

            def predict(self, rows: Any) -> Any:
                return np.zeros(len(rows))

            def predict_proba(self, rows: Any) -> Any:
                if (rows.hour == 7).any():
                    msg = "division by cucumber"
                    raise RuntimeError(msg)
                return np.full((len(rows), 2), 0.5)

        model = Broken()
    mlflow.sklearn.save_model(
        model,
        str(folder),
        signature=infer_signature(rows, late.to_numpy()),
        input_example=rows[rows.hour != 7].head(2),
        pip_requirements=["scikit-learn"],
        serialization_format="cloudpickle",
    )
    return folder


def save_rule(folder: Path, *, far_is_late: bool = True, fails: bool = False) -> Path:
    """As :func:`save_model`, with a rule in place of a tree: no library is imported here, nor where it is served.

    Its server starts two seconds of processor time sooner, so it is for tests of what goes on around the model.
    """

    class Rule:
        classes_ = (0, 1)

        def predict_proba(self, rows: Any) -> Any:
            import numpy as np

            if fails:
                if (rows.hour == 7).any():
                    msg = "division by cucumber"
                    raise RuntimeError(msg)
                return np.full((len(rows), 2), 0.5)
            late = ((rows.distance > 2500) == far_is_late).to_numpy(dtype=float)
            return np.column_stack([1 - late, late])

    types = {"distance": "double", "hour": "long", "carrier": "string"}
    save(folder, Rule(), [{"type": types[name], "name": name, "required": True} for name in COLUMNS])
    example = {"columns": COLUMNS, "data": [[3184.8, 23, "AA"], [204.9, 19, "AA"]]}
    (folder / "input_example.json").write_text(json.dumps(example))
    (folder / "serving_input_example.json").write_text(json.dumps({"dataframe_split": example}))
    return folder


def body(*rows: dict[str, Any]) -> bytes:
    """A request body of these rows; of one plain row, if none is given."""
    return json.dumps({"dataframe_records": list(rows) or [ROW]}).encode()


def ask(
    port: int, content: bytes | None = None, *, path: str = "/invocations", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], Any]:
    """One request on a connection of its own: status, headers, JSON (or text) of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        method = "GET" if content is None else "POST"
        connection.request(method, path, content, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        raw = answer.read()
        try:
            value: Any = json.loads(raw)
        except ValueError:
            value = raw.decode()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, value
    finally:
        connection.close()


def slowness() -> float:
    """How many times longer things take because others use this machine too; 1 on a calm one."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def wait_until(condition: Any, seconds: float = 30.0) -> None:
    """Wait until ``condition()`` is true."""
    deadline = time.monotonic() + seconds * slowness()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@dataclass
class Load:
    """Clients that ask without pause while the ``with`` block runs; counts statuses and versions."""

    port: int
    clients: int = 4
    statuses: Counter[Any] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    last: dict[str, float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _client(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        content = body()
        while not self._stop.is_set():
            try:
                connection.request("POST", "/invocations", content, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                self.statuses[answer.status] += 1
                version = answer.headers.get("x-model-version", "")
                self.versions[version] += 1
                self.last[version] = time.monotonic()
            except (OSError, http.client.HTTPException) as error:
                self.statuses[type(error).__name__] += 1
                connection.close()
        connection.close()

    @property
    def failed(self) -> int:
        """Requests without a good answer."""
        return sum(n for status, n in self.statuses.items() if status != 200)
