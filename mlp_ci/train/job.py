"""What every step of one training needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TextIO

from mlp_ci.errors import MlpError
from mlp_ci.train import lease
from mlp_ci.train.key import TrainKey, work_folder

if TYPE_CHECKING:
    from pathlib import Path

    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec, PlatformSpec
    from mlp_ci.spec.platform import RunnerClass
    from mlp_ci.tracking import Tracking


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where one train key lives on this machine."""

    root: Path

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def model(self) -> Path:
        return self.output / "model"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def log(self) -> Path:
        return self.root / "train.log"

    @property
    def progress(self) -> Path:
        """Where the command may tell intermediate values; a search reads them."""
        return self.root / "progress.jsonl"

    @property
    def marker(self) -> Path:
        return self.root / "trained.json"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One train key, to be trained here."""

    ctx: Context
    spec: ModelSpec
    key: TrainKey
    tracking: Tracking
    log: TextIO

    @cached_property
    def folders(self) -> Folders:
        return Folders(root=work_folder(self.ctx, self.key))

    @cached_property
    def platform(self) -> PlatformSpec | None:
        """platform.yaml; None where it cannot be had, which must not stop a training that names its own needs."""
        from mlp_ci.github import platform_of

        try:
            return platform_of(self.ctx)
        except MlpError:
            return None

    @cached_property
    def runner_class(self) -> RunnerClass | None:
        """The class of platform.yaml that ``train.runner`` names, by its name or by its labels."""
        name = self.platform.class_called(self.spec.train.runner) if self.platform else None
        return self.platform.runners[name] if self.platform and name else None

    @property
    def usd_per_hour(self) -> float | None:
        """The price of this machine; None where nobody said."""
        return self.runner_class.usd_per_hour if self.runner_class else None

    @property
    def gpus(self) -> int:
        """How many GPUs the training asks for: itself, or by the class of its machine."""
        asked = self.spec.train.resources.gpus
        return asked if asked is not None else self.runner_class.gpus if self.runner_class else 0

    @cached_property
    def holder(self) -> str:
        return lease.holder_name(self.ctx.work)

    @cached_property
    def leases(self) -> lease.Leases:
        return lease.Leases(self.tracking, self.holder)
