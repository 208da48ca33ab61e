"""The places where versions can run: what deploy, rollback and the rollout's driver need of a target."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from mlp_ci.errors import InputError
from mlp_ci.serve.state import Arm, Held, Interval, LiveFact, Place, Reversal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from mlp_ci.context import Context
    from mlp_ci.serve.measured import Measured
    from mlp_ci.serve.rollout.progress import Progress
    from mlp_ci.spec import ModelSpec, PlatformSpec
    from mlp_ci.spec.serve import Serve

# Where the target of that name is made: a module with a function ``target(platform)``.
TARGETS = {
    "local": "mlp_ci.serve.targets.local",
    "docker": "mlp_ci.serve.targets.docker",
    "kubernetes": "mlp_ci.serve.targets.kubernetes",
}


@dataclass(frozen=True)
class Release:
    """What is to run: a version and the verified folder of its artefact.

    ``evidence`` is the digest of its evidence, ``run`` the MLflow run that made it; empty where they are not known.
    """

    version: int
    digest: str
    artefact: Path
    evidence: str = ""
    run: str = ""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How it is to run: ``serve`` of model.yaml, what the prediction log keeps, and the lineage that labels carry.

    ``log`` is empty for no log, else ``root`` (a folder), ``columns`` (name → type) and ``sample`` (0 to 1). ``labels``
    are short texts: commit, run, team.
    """

    serve: Serve
    log: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Why:
    """Why traffic goes back, and who wants it (a login; empty where it is not known)."""

    reason: str
    now: datetime
    by: str = ""


@dataclass(frozen=True)
class Answer:
    """What a version answered: the HTTP status and the body."""

    status: int
    body: bytes


class Target(Protocol):
    """What deploy, rollback and a rollout need of a target. Every call may be repeated, and killed anywhere."""

    # ------------------------------------------------------------ what runs

    def live(self, place: Place) -> LiveFact | None:
        """The version that has the traffic; None when nothing was ever deployed."""

    def history(self, home: Path, model: str) -> list[Interval]:
        """Which versions had the traffic, and when."""

    def prepare(self, place: Place, release: Release, settings: Settings) -> None:
        """Have ``release`` run and answer, without any traffic. Does nothing when it already does.

        Raises RolloutAborted as soon as another command ends what this one starts; InputError when the version does
        not start, OutsideError when the machine or the cluster does not let it.
        """

    def plan(self, place: Place, release: Release, settings: Settings) -> str:
        """What :meth:`prepare` and the rollout would change, as text for people (a diff); "" when nothing would."""

    def ask(self, place: Place, version: int | None, body: bytes) -> Answer:
        """Post ``body`` to ``/invocations`` of the version itself, or of the address that clients use (None).

        Raises OutsideError when nobody answers.
        """

    def healthy(self, place: Place, version: int) -> bool:
        """Whether the version answers its health check, now."""

    def withdraw(self, place: Place, version: int) -> None:
        """End a version that has no traffic, once it has answered what it was asked."""

    def tidy(self, place: Place) -> None:
        """End every version that has no traffic and is not kept warm."""

    def stop(self, place: Place) -> None:
        """End everything; what ran and when stays known, and the next deploy starts it again."""

    # ------------------------------------------------------------ traffic

    def arms(self, place: Place) -> list[Arm]:
        """How the traffic is split now. An arm called shadow gets a copy of ``weight`` per cent, and never answers."""

    def shift(self, place: Place, arms: Sequence[Arm], expected: Sequence[Arm] | None = None) -> None:
        """Split the traffic; on return every new request follows the new split.

        Raises RolloutAborted, and changes nothing, when the split is not the ``expected`` one: somebody else moved it.
        """

    def settle(self, place: Place, release: Release, now: datetime, expected: Sequence[Arm] | None = None) -> None:
        """Give the version everything, keep the one before warm, end all others; its rollout, if any, is done."""

    def turn_back(
        self, place: Place, to: int | None, why: Why, expected: Sequence[Arm] | None = None
    ) -> tuple[Reversal, bool]:
        """Give all traffic to an earlier version (the previous one, if ``to`` is None); a rollout is aborted by it.

        Returns the reversal and whether traffic moved; it did not when an earlier call was killed after that. Raises
        RolloutAborted, and changes nothing, when the split is not the ``expected`` one.
        """

    # ------------------------------------------------------------ the rollout

    def measured(self, place: Place) -> Measured:
        """What every version answered, counted up to now; OutsideError when nobody can say."""

    def progress(self, place: Place) -> Progress | None:
        """How far the newest rollout is, also when it is over; None when there was none."""

    def keep(self, place: Place, progress: Progress | None, expected: Progress | None) -> None:
        """Remember how far it is. RolloutAborted, and nothing changes, when what was kept is not ``expected``."""

    # ------------------------------------------------------------ what was said of it

    def announced(self, place: Place) -> int | None:
        """The version whose alias and deployment record were made."""

    def announce(self, place: Place, version: int) -> None:
        """Note that they were."""

    def held(self, place: Place) -> list[Held]:
        """Versions that were rolled back here."""

    def acknowledge(self, place: Place, digest: str) -> None:
        """Note that git knows of the rollback, so that git alone decides from now on."""

    def reversal(self, place: Place) -> Reversal | None:
        """The rollback that led to what is live, if one did."""

    def unfinished(self, place: Place) -> list[Reversal]:
        """The rollbacks of which git, the registry or GitHub were not told yet, oldest first."""

    def note(self, place: Place, reversal: Reversal) -> None:
        """Note how far the record of a rollback is."""


def target_of(serve: Serve, platform: PlatformSpec | None) -> Target:
    """The target that ``serve.target`` of model.yaml names, with the settings of platform.yaml (None: defaults)."""
    home = TARGETS.get(serve.target, "")
    try:
        module = import_module(home or f"{__name__}.{serve.target}")
    except ModuleNotFoundError as error:
        if error.name not in (home, f"{__name__}.{serve.target}"):
            raise
        msg = f"serve.target is {serve.target}, and this version of mlp-ci has no such target"
        raise InputError(msg, fix="set serve.target in model.yaml to local") from error
    made: Target = module.target(platform)
    return made


def target_here(ctx: Context, model: ModelSpec) -> Target:
    """The target of the model; only one that is not this machine's own needs to know its settings from GitHub."""
    if model.serve.target == "local":
        return target_of(model.serve, None)
    from mlp_ci.github import platform_of

    return target_of(model.serve, platform_of(ctx))


def live(ctx: Context, model: ModelSpec, stage: str) -> LiveFact | None:
    """What really runs for ``model`` in ``stage``; None when nothing was ever deployed."""
    return target_here(ctx, model).live(Place(ctx.serve_home, model.name, stage))


def history(ctx: Context, model: ModelSpec) -> list[Interval]:
    """The intervals in which versions of ``model`` had the traffic of a stage, by start."""
    return target_here(ctx, model).history(ctx.serve_home, model.name)
