"""What every step of one training needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TextIO

from mlp_ci.train import lease
from mlp_ci.train.key import TrainKey, work_folder

if TYPE_CHECKING:
    from pathlib import Path

    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec
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
    def holder(self) -> str:
        return lease.holder_name(self.ctx.work)

    @cached_property
    def leases(self) -> lease.Leases:
        return lease.Leases(self.tracking, self.holder)
