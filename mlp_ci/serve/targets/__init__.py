"""The places where versions can run. A target is a module with the functions of :class:`Target`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from mlp_ci.errors import InputError
from mlp_ci.serve.state import Arm, Held, Interval, LiveFact, Place, Reversal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from mlp_ci.context import Context

TARGETS = ("local",)


@dataclass(frozen=True)
class Release:
    """What is to run: a version and the verified folder of its artefact; ``evidence`` is the digest of its evidence."""

    version: int
    digest: str
    artefact: Path
    evidence: str = ""


@dataclass(frozen=True, kw_only=True)
class Why:
    """Why traffic goes back, and who wants it (a login; empty where it is not known)."""

    reason: str
    now: datetime
    by: str = ""


@dataclass(frozen=True)
class Counts:
    """What a version answered since its gateway started; ``errors`` are its own faults."""

    requests: int = 0
    errors: int = 0


class Target(Protocol):
    """What deploy and rollback need of a target."""

    def live(self, place: Place) -> LiveFact | None:
        """The version that has the traffic; None when nothing was ever deployed."""

    def prepare(self, place: Place, release: Release, log: Mapping[str, Any]) -> None:
        """Have ``release`` run and answer, without any traffic. Does nothing when it already does.

        Raises RolloutAborted as soon as another command ends what this one starts.
        """

    def try_out(self, place: Place, version: int, body: bytes) -> str:
        """Ask the version directly; empty when it answers as it should, else what is wrong."""

    def arms(self, place: Place) -> list[Arm]:
        """How the traffic is split now."""

    def shift(self, place: Place, arms: Sequence[Arm], expected: Sequence[Arm] | None = None) -> None:
        """Split the traffic; on return every new request follows the new split.

        Raises RolloutAborted, and changes nothing, when the split is not the ``expected`` one: somebody else moved it.
        """

    def healthy(self, place: Place, version: int) -> bool:
        """Whether the version answers its health check."""

    def counts(self, place: Place) -> Mapping[int, Counts]:
        """Requests and errors by version."""

    def settle(self, place: Place, release: Release, now: datetime, expected: Sequence[Arm] | None = None) -> None:
        """Give the version everything, keep the one before warm, end all others once they have answered."""

    def withdraw(self, place: Place, version: int) -> None:
        """End a version that has no traffic."""

    def announced(self, place: Place) -> int | None:
        """The version whose alias and deployment record were made."""

    def announce(self, place: Place, version: int) -> None:
        """Note that they were."""

    def held(self, place: Place) -> list[Held]:
        """Versions that were rolled back here."""

    def acknowledge(self, place: Place, digest: str) -> None:
        """Note that git knows of the rollback, so that git alone decides from now on."""

    def turn_back(self, place: Place, to: int | None, why: Why) -> tuple[Reversal, bool]:
        """Give all traffic to an earlier version (the previous one, if ``to`` is None).

        Returns the reversal and whether traffic moved; it did not when an earlier call was killed after that.
        """

    def reversal(self, place: Place) -> Reversal | None:
        """The rollback that led to what is live, if one did."""

    def unfinished(self, place: Place) -> list[Reversal]:
        """The rollbacks of which git, the registry or GitHub were not told yet, oldest first."""

    def note(self, place: Place, reversal: Reversal) -> None:
        """Note how far the record of a rollback is."""

    def stop(self, place: Place) -> None:
        """End everything; what ran and when stays known, and the next deploy starts it again."""

    def tidy(self, place: Place) -> None:
        """End every version that has no traffic and is not kept warm."""

    def history(self, home: Path, model: str) -> list[Interval]:
        """Which versions had the traffic, and when."""


def target_of(name: str) -> Target:
    """The target called ``name`` in model.yaml."""
    if name not in TARGETS:
        msg = f"serve.target is {name}, and this version of mlp-ci has no such target"
        raise InputError(msg, fix=f"set serve.target in model.yaml to {' or '.join(TARGETS)}")
    return cast(Target, import_module(f"mlp_ci.serve.targets.{name}"))


def live(ctx: Context, model: str, stage: str) -> LiveFact | None:
    """What really runs for ``model`` in ``stage`` on this machine; None when nothing was ever deployed."""
    return target_of("local").live(Place(ctx.serve_home, model, stage))


def history(ctx: Context, model: str) -> list[Interval]:
    """The intervals in which versions of ``model`` had the traffic of a stage, by start."""
    return target_of("local").history(ctx.serve_home, model)
