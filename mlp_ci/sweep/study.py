"""What to try next, what to give up, and which parameters mattered: the only user of Optuna.

Every question is put to a study in memory that is made from the trials as MLflow remembers them. Samplers get a seed by
the number of the trial, so an interrupted search proposes what an undisturbed one would have.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import warnings
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError
from mlp_ci.sweep.trials import COMPLETE, FAILED, PRUNED, RUNNING, Trial

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlp_ci.spec.sweep import Range, Scalar, Sweep

LARGEST_GRID = 100_000
TRIES = 20  # before a repeated proposal is given up
FEWEST_FOR_IMPORTANCE = 5


class Study:
    """The search of one sweep; ``maximize``: whether higher is better."""

    def __init__(self, sweep: Sweep, *, maximize: bool, seed: int) -> None:
        self._optuna = _library(sweep)
        self._sweep = sweep
        self._direction = "maximize" if maximize else "minimize"
        self._seed = seed
        self._size = _size(sweep)
        if sweep.sampler == "grid" and self._size > LARGEST_GRID:
            msg = f"the grid has {self._size:,} points"
            fix = "take fewer values, or another sampler (tpe): it decides by itself which are worth a trial"
            raise InputError(msg, why=f"more than {LARGEST_GRID:,} are not listed", fix=fix, file="model.yaml")

    @property
    def size(self) -> float:
        """How many different trials there can be; infinity for a continuous range."""
        return self._size

    def propose(self, trials: Sequence[Trial]) -> dict[str, Scalar] | None:
        """Values that no trial has had; None where all have been tried."""
        taken = {_identity(t.values) for t in trials}
        if self._sweep.sampler != "grid":
            for attempt in range(TRIES):
                values = self._sampled(trials, len(trials) * TRIES + attempt)
                if _identity(values) not in taken:
                    return values
            if self._size > LARGEST_GRID:
                return values
        return next((v for v in self._grid() if _identity(v) not in taken), None)

    def _sampled(self, trials: Sequence[Trial], salt: int) -> dict[str, Scalar]:
        study = self._of(trials, salt)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dict(study.ask(self._distributions()).params)

    def falls_behind(self, trials: Sequence[Trial], trial: Trial) -> tuple[bool, dict[str, Any]]:
        """Whether ``trial``, with its curve so far, should be ended, and what the pruner wants noted about it."""
        if not trial.curve or self._sweep.pruner == "none":
            return False, {}
        others = [t for t in trials if t.run.run_id != trial.run.run_id]
        together = sorted([*others, trial], key=lambda t: (t.number, t.run.run_id))
        position = together.index(trial)
        study = self._of(together, trial.number)
        pruned = bool(study.pruner.prune(study, study.trials[position]))
        return pruned, dict(study.trials[position].system_attrs)

    def importances(self, trials: Sequence[Trial]) -> dict[str, float]:
        """Parameter → its share of the variance of the metric (fANOVA), highest first; empty where too few tell."""
        complete = [t for t in trials if t.state == COMPLETE]
        if len(complete) < FEWEST_FOR_IMPORTANCE or len({t.value for t in complete}) < 2:
            return {}
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = get_param_importances(
                self._of(complete, 0), evaluator=FanovaImportanceEvaluator(seed=self._seed % 2**31)
            )
        return {name: float(share) for name, share in found.items()}

    # ------------------------------------------------------------ in Optuna's words

    def _of(self, trials: Sequence[Trial], salt: int) -> Any:
        """A study in memory with these trials, in their order."""
        optuna = self._optuna
        study = optuna.create_study(
            study_name="sweep",
            direction=self._direction,
            sampler=self._sampler((self._seed * 1_000_003 + salt) % 2**32),
            pruner=self._pruner(),
        )
        states = optuna.trial.TrialState
        state = {COMPLETE: states.COMPLETE, PRUNED: states.PRUNED, FAILED: states.FAIL, RUNNING: states.RUNNING}
        for trial in trials:
            study.add_trial(
                optuna.trial.create_trial(
                    state=state[trial.state],
                    value=_value(trial),
                    params=dict(trial.values),
                    distributions=self._distributions(),
                    intermediate_values=dict(trial.curve),
                    system_attrs=dict(trial.rungs),
                )
            )
        return study

    def _sampler(self, seed: int) -> Any:
        samplers = self._optuna.samplers
        if self._sweep.sampler == "gp":
            return samplers.GPSampler(seed=seed)
        if self._sweep.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        return samplers.TPESampler(seed=seed)

    def _pruner(self) -> Any:
        pruners = self._optuna.pruners
        return {
            "none": pruners.NopPruner,
            "median": pruners.MedianPruner,
            "hyperband": pruners.HyperbandPruner,
            "successive-halving": pruners.SuccessiveHalvingPruner,
        }[self._sweep.pruner]()

    def _distributions(self) -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {name: self._distribution(values) for name, values in self._sweep.parameters.items()}

    def _distribution(self, values: Range) -> Any:
        kinds = self._optuna.distributions
        if values.choice is not None:
            return kinds.CategoricalDistribution(values.choice)
        if values.int is not None:
            return kinds.IntDistribution(*values.int, log=values.log, step=int(values.step or 1))
        low, high = values.float or (0.0, 1.0)
        return kinds.FloatDistribution(low, high, log=values.log, step=values.step)

    # ------------------------------------------------------------ grids

    def _grid(self) -> Iterator[dict[str, Scalar]]:
        """All points in an order drawn by the seed, so that a short budget does not only see one corner."""
        names = list(self._sweep.parameters)
        points = list(itertools.product(*(listed(v) for v in self._sweep.parameters.values())))
        random.Random(self._seed).shuffle(points)
        return (dict(zip(names, point, strict=True)) for point in points)


def listed(values: Range) -> list[Scalar]:
    """The values of a range that has a list of them."""
    if values.choice is not None:
        return list(values.choice)
    if values.int is not None:
        return list(range(values.int[0], values.int[1] + 1, int(values.step or 1)))
    (low, high), step = values.float or (0.0, 1.0), values.step or 1.0
    # In decimals, as people write them: three steps of 0.1 are 0.3, and not just above it.
    return [float(Decimal(str(low)) + i * Decimal(str(step))) for i in range(int((high - low) / step + 1e-9) + 1)]


def _size(sweep: Sweep) -> float:
    """How many points the space has, without listing them."""
    size = 1.0
    for values in sweep.parameters.values():
        if values.choice is not None:
            size *= len(values.choice)
        elif values.int is not None:
            size *= (values.int[1] - values.int[0]) // int(values.step or 1) + 1
        elif values.float is not None and values.step is not None:
            size *= int((values.float[1] - values.float[0]) / values.step + 1e-9) + 1
        else:
            return math.inf
    return size


def _value(trial: Trial) -> float | None:
    """A pruned trial counts with its last intermediate value, as Optuna has it."""
    if trial.state == COMPLETE:
        return trial.value
    return trial.curve[max(trial.curve)] if trial.state == PRUNED and trial.curve else None


def _identity(values: Mapping[str, Scalar]) -> str:
    return json.dumps(dict(values), sort_keys=True)


def _library(sweep: Sweep) -> Any:
    try:
        import optuna
    except ImportError as error:
        msg = "train.sweep needs optuna, which is not installed here"
        raise InputError(msg, fix="pip install 'mlp-ci[sweep]'") from error
    if sweep.sampler == "gp":
        import importlib.util

        if importlib.util.find_spec("torch") is None:
            msg = "the sampler gp needs torch, which is not installed here"
            raise InputError(msg, fix="install torch beside mlp-ci, or take the sampler tpe", file="model.yaml")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
