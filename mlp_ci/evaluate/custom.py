"""Metrics of the team's own: ``evaluate.command``, any command in any language, run once per model after predicting.

It runs in the training environment, in the repository, without the job's secrets, and gets in its environment:
``MLP_MODEL`` (the model's folder), ``MLP_DATA_TEST`` (the held-out file), ``MLP_PREDICTIONS`` (a Parquet file with the
predictions of its rows, in their order), ``MLP_OUTPUT`` (a folder) and ``MLP_SEED``. It writes
``$MLP_OUTPUT/metrics.json``: ``{name: number}``, or ``{name: {value, low, high, higher_is_better}}`` where low and high
are a 95 % interval and all but value may be left out.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError
from mlp_ci.evaluate.bootstrap import Estimate
from mlp_ci.evaluate.metrics import TASKS, Metric, metric_called
from mlp_ci.spec.quantities import show_duration
from mlp_ci.train import command as process
from mlp_ci.train.relay import Mask, secrets_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.evaluate.answers import Predicted
    from mlp_ci.evaluate.predict import Where
    from mlp_ci.spec import Gate, ModelSpec

FILE = "metrics.json"
METHOD = "as the command says"
MOST_BYTES = 1_000_000
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\- ]{0,99}")
KEYS = {"value", "low", "high", "higher_is_better"}
FIX = 'write {"name": 0.25} or {"name": {"value": 0.25, "low": 0.2, "high": 0.3, "higher_is_better": true}}'
Z = 1.959963984540054  # of a 95 % interval


@dataclass(frozen=True, kw_only=True)
class Own:
    """One value of a team's own metric; ``higher_is_better`` is None where the command does not say."""

    value: float
    low: float | None = None
    high: float | None = None
    higher_is_better: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_json` reads them back."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Own:
        """Read what :meth:`to_json` wrote."""
        return Own(**{name: value.get(name) for name in KEYS})  # type: ignore[arg-type]

    def estimate(self) -> Estimate:
        """With its interval, if the command gave one."""
        if self.low is None or self.high is None:
            return Estimate(value=self.value)
        sides = TwoSides(self.value, (self.value - self.low) / Z, (self.high - self.value) / Z)
        return Estimate(value=self.value, low=self.low, high=self.high, method=METHOD, belief=sides)


@dataclass(frozen=True)
class TwoSides:
    """What an interval says of all levels, if either side of it is a normal distribution's. A ``Belief``."""

    value: float
    below: float
    above: float

    def bound(self, share: float) -> float:
        """The true value lies below it with confidence ``share``."""
        from scipy.special import ndtri

        return float(self.value + ndtri(share) * (self.below if share < 0.5 else self.above))

    def p_at_least(self, limit: float) -> float:
        """The p-value of "the true value is less than the limit"."""
        return self._share(limit)

    def p_at_most(self, limit: float) -> float:
        """The p-value of "the true value is more than the limit"."""
        return 1 - self._share(limit)

    def _share(self, limit: float) -> float:
        from scipy.special import ndtr

        spread = self.below if limit < self.value else self.above
        away = limit - self.value
        return float(ndtr(away / spread)) if spread > 0 else float(away > 0)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One model to run the command for: its folder, the held-out file, what it predicted, and where commands run."""

    repo: Path
    spec: ModelSpec
    model: Path
    test: Path
    predicted: Predicted
    where: Where


def run(trial: Trial) -> dict[str, Own]:
    """Run ``evaluate.command`` for one model; nothing when there is none.

    InputError when it fails, takes too long, or writes no metrics that can be read.
    """
    line = trial.spec.evaluate.command
    if not line:
        return {}
    with tempfile.TemporaryDirectory(prefix="mlp-ci-") as scratch:
        place = Path(scratch)
        (place / "output").mkdir()
        write_predictions(trial.predicted, place / "predictions.parquet")
        ended = process.run(_command(trial, line, place), io.StringIO(), Mask(secrets_in(os.environ)))
        if ended.why == "interrupted":
            raise KeyboardInterrupt
        if ended.why != "exit" or ended.code:
            raise _failed(ended, trial.spec, place / "log")
        return read(place / "output" / FILE)


def _command(trial: Trial, line: str, place: Path) -> process.Command:
    environ = {
        **trial.where.environ,
        "PATH": os.pathsep.join([str(trial.where.python.parent), trial.where.environ.get("PATH", os.defpath)]),
        "MLP_MODEL": str(trial.model.resolve()),
        "MLP_DATA_TEST": str(trial.test.resolve()),
        "MLP_PREDICTIONS": str(place / "predictions.parquet"),
        "MLP_OUTPUT": str(place / "output"),
        "MLP_SEED": str(trial.spec.train.seed),
        "PYTHONUNBUFFERED": "1",
    }
    return process.Command(
        line=line,
        folder=trial.repo,
        environ=environ,
        timeout=trial.spec.evaluate.command_timeout.total_seconds(),
        notes=place,
        log=place / "log",
    )


def _failed(ended: process.Ended, spec: ModelSpec, log: Path) -> InputError:
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-12:] if log.is_file() else []
    why = "\n".join(["its last lines:", *said]) if said else "it said nothing"
    if ended.why == "timeout":
        msg = f"evaluate.command took longer than {show_duration(spec.evaluate.command_timeout)} and was stopped"
        return InputError(msg, why=why, fix="make it faster, or raise evaluate.command_timeout", file="model.yaml")
    how = f"was ended by {ended.signal_name}" if ended.signal_name else f"ended with exit code {ended.code}"
    msg = f"evaluate.command {how}: `{spec.evaluate.command}`"
    return InputError(msg, why=why, fix="mend the command; docs/reference/metrics.md shows how to run it by hand")


def write_predictions(predicted: Predicted, file: Path) -> None:
    """``prediction`` (a class, a number, a score, or labels with ``|`` between them) and, where the model gives them,
    ``probability`` (of the positive class) or ``probability_<class>``."""
    import numpy as np
    import pandas as pd

    said = predicted.predictions
    if said.classes and said.label.ndim == 1:
        names = np.asarray([*said.classes, ""])  # a binary model may say a class that nobody knows: -1
        frame = pd.DataFrame({"prediction": names[said.label]})
    else:
        frame = pd.DataFrame({"prediction": predicted.logged if said.label.ndim == 2 else said.label})
    if said.probability is not None and said.probability.ndim == 1:
        frame["probability"] = said.probability
    elif said.probability is not None:
        frame = frame.join(pd.DataFrame(said.probability, columns=[f"probability_{name}" for name in said.classes]))
    frame.to_parquet(file)


def read(file: Path) -> dict[str, Own]:
    """The metrics of a ``metrics.json``; InputError says what is wrong with it."""
    if not file.is_file():
        msg = f"evaluate.command ended well but wrote no $MLP_OUTPUT/{FILE}"
        raise InputError(msg, fix=FIX)
    if file.stat().st_size > MOST_BYTES:
        msg = f"the {FILE} of evaluate.command has {file.stat().st_size:,} bytes; {MOST_BYTES:,} are read"
        raise InputError(msg, fix="write metrics, not data")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        msg = f"the {FILE} of evaluate.command is not JSON: {error}"
        raise InputError(msg, fix=FIX) from error
    if not isinstance(value, dict) or not value:
        msg = f"the {FILE} of evaluate.command holds no metrics"
        raise InputError(msg, fix=FIX)
    return {str(name): _own(str(name), one) for name, one in sorted(value.items())}


def _own(name: str, value: Any) -> Own:
    wrong = _wrong(name, value)
    if wrong:
        msg = f"the {FILE} of evaluate.command: {name[:100]!r} {wrong}"
        raise InputError(msg, fix=FIX)
    given = value if isinstance(value, dict) else {"value": value}
    numbers = {key: float(given[key]) for key in ("value", "low", "high") if given.get(key) is not None}
    return Own(**numbers, higher_is_better=given.get("higher_is_better"))


def _wrong(name: str, value: Any) -> str:
    """What is wrong with one metric; empty when nothing is."""
    if not NAME.fullmatch(name):
        return "is no name: letters, digits, `_`, `-`, `.` and spaces, at most 100"
    if is_known(name):
        return "is the name of a metric of mlp-ci; call yours something else"
    given = value if isinstance(value, dict) else {"value": value}
    if set(given) - KEYS:
        return f"has {sorted(set(given) - KEYS)[0]!r}, and only {', '.join(sorted(KEYS))} are known"
    if given.get("value") is None:
        return "has no value"
    numbers = [given[key] for key in ("low", "value", "high") if given.get(key) is not None]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
        return "is not a finite number"
    if ("low" in given) != ("high" in given):
        return "has one end of an interval; give low and high"
    if numbers != sorted(numbers):
        return "does not lie between its low and high"
    if not isinstance(given.get("higher_is_better", True), bool):
        return "has a higher_is_better that is neither true nor false"
    return ""


def is_known(name: str) -> bool:
    """Whether mlp-ci has a metric of this name itself."""
    try:
        metric_called(name)
    except InputError:
        return False
    return True


def metric(name: str, own: Own) -> Metric:
    """A team's own metric; it can be compared with a champion's where the command says which way is better."""
    return Metric(
        name=name,
        tasks=TASKS,
        higher_is_better=own.higher_is_better is not False,
        comparable=own.higher_is_better is not None,
    )


def require(gates: Sequence[Gate], own: Mapping[str, Own]) -> None:
    """InputError for a gate whose metric neither mlp-ci nor the command has, or that cannot be judged as it asks."""
    for gate in gates:
        if is_known(gate.metric):
            continue
        if gate.metric not in own:
            msg = f"a gate asks for {gate.metric}, and evaluate.command wrote {', '.join(own) or 'nothing'}"
            raise InputError(msg, fix=f"write it to $MLP_OUTPUT/{FILE}, or change the gate", file="model.yaml")
        if gate.slice or gate.gap:
            msg = f"{gate.metric} is evaluate.command's own: one value of the whole, without slices and gaps"
            raise InputError(
                msg, fix="let the command write one metric per slice, with a gate for each", file="model.yaml"
            )
        if gate.versus and own[gate.metric].higher_is_better is None:
            msg = f"a gate compares {gate.metric} with {gate.versus}, and nobody says which way is better"
            fix = f'let the command write {{"{gate.metric}": {{"value": …, "higher_is_better": true}}}}'
            raise InputError(msg, fix=fix)
