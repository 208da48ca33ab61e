"""What runs for one model in one stage of the local target, as a file: the fact that everything else is derived from.

``state.json`` is written by commands, under a lock and atomically; ``gateway.json`` is derived from it for the gateway
and ``processes.json`` is the supervisor's. Times are ISO 8601 in UTC, by the project's clock.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import OutsideError
from mlp_ci.serve.kept import known
from mlp_ci.serve.rollout.progress import Phase, Progress
from mlp_ci.serve.routing import gateway_plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

STABLE, CANARY, SHADOW = "stable", "canary", "shadow"
REVERSAL_STEPS = ("git", "alias", "record", "deployment")
# What still has to be said of a rollback after a deploy, or another rollback, moved the traffic on.
OVERTAKEN_STEPS = {"deploy": ("git", "record"), "rollback": ("git", "record", "deployment")}


@dataclass(frozen=True, kw_only=True)
class LiveFact:
    """The version that has the traffic of a stage. ``running`` is False when its processes are gone (a reboot).

    ``previous`` is the version that a rollback would go back to, if there is one; ``evidence`` the digest of what the
    version was registered with.
    """

    version: int
    digest: str
    since: datetime
    address: str
    previous: int | None
    running: bool
    evidence: str = ""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A time during which a version had the traffic of a stage; ``ended`` is None while it lasts."""

    stage: str
    version: int
    digest: str
    started: datetime
    ended: datetime | None


@dataclass(frozen=True)
class Place:
    """One model in one stage, under ``home`` (the target's folder on this machine)."""

    home: Path
    model: str
    stage: str

    @property
    def folder(self) -> Path:
        return self.home / self.model / self.stage

    @property
    def state_file(self) -> Path:
        return self.folder / "state.json"

    @property
    def gateway_file(self) -> Path:
        return self.folder / "gateway.json"

    @property
    def processes_file(self) -> Path:
        return self.folder / "processes.json"

    @property
    def token_file(self) -> Path:
        return self.folder / "token"

    def __str__(self) -> str:
        return f"{self.model} in {self.stage}"


@dataclass(frozen=True, kw_only=True)
class Server:
    """A version's server that should run: on this port, with this artefact, in this Python or as this image.

    ``options`` are what model.yaml says of its processes, memory and batches, as JSON.
    """

    version: int
    digest: str
    port: int
    artefact: str
    python: str
    image: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A share of the traffic: ``weight`` in per cent, ``arm`` is stable, canary, or shadow (of copies)."""

    version: int
    weight: int
    arm: str = STABLE


@dataclass(frozen=True, kw_only=True)
class Held:
    """Bytes that were rolled back here. Until git knows (``known``), deploy must not bring them back on its own."""

    version: int
    digest: str
    reason: str
    since: str
    known: bool = False


@dataclass(frozen=True, kw_only=True)
class Reversal:
    """A rollback from ``held`` to ``version`` whose traffic has moved; ``done`` names the later steps that are over.

    ``by`` is the login of who asked for it, where that is known. ``commit``, ``pull`` and ``record`` are what the later
    steps made. ``overtaken`` says what moved the traffic on before they were over: deploy or rollback.
    """

    held: Held
    version: int
    digest: str
    evidence: str = ""
    by: str = ""
    done: tuple[str, ...] = ()
    commit: str = ""
    pull: int | None = None
    record: str = ""
    overtaken: str = ""

    @property
    def left(self) -> tuple[str, ...]:
        """The steps that are still to be done, in their order."""
        wanted = OVERTAKEN_STEPS.get(self.overtaken, REVERSAL_STEPS)
        return tuple(step for step in wanted if step not in self.done)

    @property
    def finished(self) -> bool:
        return not self.left

    def same(self, other: Reversal | None) -> bool:
        """Whether both are one rollback, however far its record is."""
        return other is not None and self.held.digest == other.held.digest and self.held.since == other.held.since


@dataclass
class State:
    """The whole ``state.json``. ``announced`` is the version whose alias and deployment record were made.

    ``reversal`` is the rollback that led to what is live, if one did; ``overtaken`` are earlier ones of which git was
    not told yet. ``progress`` is the newest rollout, also when it is over. ``serve``, ``log`` and ``labels`` are the
    settings of the last deploy, as JSON: what a rollback starts a version with that no longer runs.
    """

    model: str
    stage: str
    generation: int = 0
    gateway_port: int = 0
    python: str = ""
    clock_file: str = ""
    stopped: bool = False
    servers: dict[int, Server] = field(default_factory=dict)
    arms: list[Arm] = field(default_factory=list)
    live: int | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    reversal: Reversal | None = None
    overtaken: list[Reversal] = field(default_factory=list)
    announced: int | None = None
    log: dict[str, Any] = field(default_factory=dict)
    serve: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    progress: Progress | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    def intervals(self) -> list[Interval]:
        """When versions had the traffic, by start."""
        return [
            Interval(
                stage=self.stage,
                version=int(h["version"]),
                digest=str(h["digest"]),
                started=datetime.fromisoformat(h["started"]),
                ended=datetime.fromisoformat(h["ended"]) if h["ended"] else None,
            )
            for h in self.history
        ]

    def digest_of(self, version: int) -> str | None:
        """The digest that ``version`` last had when it ran here."""
        digests = [str(h["digest"]) for h in self.history if h["version"] == version]
        return digests[-1] if digests else None

    def canary(self) -> int | None:
        """The version that is on its way in, if there is one."""
        return next((a.version for a in self.arms if a.arm in (CANARY, SHADOW)), None)

    def warm(self) -> set[int]:
        """The versions that are to run: what has traffic, and the one that a rollback would go back to."""
        rollout = self.serve.get("rollout") or {}
        kept = self.serve.get("keep_previous", True) or rollout.get("strategy") == "blue-green"
        wanted = {self.live, *(a.version for a in self.arms), *([self.previous()] if kept else [])}
        return {version for version in wanted if version is not None}

    def previous(self) -> int | None:
        """The version before the live one that was not itself rolled back."""
        bad = {h.digest for h in self.held}
        before = [h for h in self.history if h["version"] != self.live and h["digest"] not in bad]
        return int(before[-1]["version"]) if before else None

    def evidence_of(self, version: int) -> str:
        """The digest of the evidence that ``version`` last ran with here; empty where it was not noted."""
        return next((str(h.get("evidence") or "") for h in reversed(self.history) if h["version"] == version), "")

    def hand_over(self, version: int, digest: str, now: datetime, evidence: str = "") -> None:
        """Note that ``version`` has all the traffic from ``now`` on; the interval before ends."""
        if self.live != version:
            for interval in self.history:
                interval["ended"] = interval["ended"] or now.isoformat()
            begun = {"version": version, "digest": digest, "evidence": evidence}
            self.history.append({**begun, "started": now.isoformat(), "ended": None})
        self.live = version
        self.arms = [Arm(version=version, weight=100)]

    def settle(self, version: int, digest: str, now: datetime, evidence: str) -> None:
        """Note that a deploy gave ``version`` all the traffic; an earlier rollback of its bytes no longer counts."""
        mine = self.progress is not None and self.progress.version == version
        self._end_rollout(Phase.DONE if mine else Phase.ABORTED, "" if mine else f"version {version} was deployed")
        self.hand_over(version, digest, now, evidence)
        self.held = [h for h in self.held if h.digest != digest]
        if self.reversal and self.reversal.version != version:
            self.overtake("deploy")

    def reverse(self, version: int, held: Held, by: str) -> Reversal:
        """Note that a rollback gave ``version``, which ran here before, all the traffic, and what it took it from."""
        digest, evidence = self.digest_of(version) or "", self.evidence_of(version)
        self.held = [h for h in self.held if h.digest not in (digest, held.digest)] + [held]
        self.overtake("rollback")
        self.reversal = Reversal(held=held, version=version, digest=digest, evidence=evidence, by=by)
        self.announced = None
        self._end_rollout(Phase.ABORTED, held.reason or "it was rolled back")
        self.hand_over(version, digest, datetime.fromisoformat(held.since), evidence)
        return self.reversal

    def _end_rollout(self, phase: Phase, why: str) -> None:
        if self.progress is not None and self.progress.going:
            self.progress = replace(self.progress, phase=phase, why=why)

    def taken(self) -> tuple[int, str]:
        """The version and digest that a rollback takes away now: what is on its way in, else what is live."""
        version = self.canary() or self.live or 0
        server = self.servers.get(version)
        return version, server.digest if server else self.digest_of(version) or ""

    def overtake(self, by: str) -> None:
        """The traffic moves on: of the rollback before, what git was not told yet stays to be done."""
        if self.reversal is not None:
            before = replace(self.reversal, overtaken=by)
            self.overtaken += [] if before.finished else [before]
        self.reversal = None

    def note(self, reversal: Reversal) -> None:
        """Note how far the record of a rollback is."""
        if reversal.same(self.reversal):
            self.reversal = reversal
        self.overtaken = [reversal if reversal.same(o) else o for o in self.overtaken]
        self.overtaken = [o for o in self.overtaken if not o.finished]


def read(place: Place) -> State | None:
    """The state of ``place``, or None when nothing ever ran there."""
    try:
        text = place.state_file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return from_json(json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        msg = f"{place.state_file} cannot be read: {error}"
        fix = f"move {place.folder} away and run `mlp-ci deploy` again"
        raise OutsideError(msg, why="it says what runs for this stage", fix=fix) from error


def to_json(state: State) -> dict[str, Any]:
    """The state as JSON, wherever a target keeps it."""
    progress = state.progress.to_json() if state.progress else None
    return {**asdict(replace(state, progress=None)), "progress": progress}


def from_json(raw: Mapping[str, Any]) -> State:
    """The state from :func:`to_json`; raises KeyError, TypeError or ValueError where something lacks."""
    return State(
        **{
            **known(State, raw),
            "servers": {int(k): Server(**known(Server, v)) for k, v in raw["servers"].items()},
            "arms": [Arm(**known(Arm, a)) for a in raw["arms"]],
            "held": [Held(**known(Held, h)) for h in raw["held"]],
            "reversal": _reversal(raw["reversal"]),
            "overtaken": [o for o in map(_reversal, raw.get("overtaken") or []) if o],
            "progress": Progress.from_json(raw["progress"]) if raw.get("progress") else None,
        }
    )


def _reversal(raw: Mapping[str, Any] | None) -> Reversal | None:
    if raw is None:
        return None
    held = Held(**known(Held, raw["held"]))
    return Reversal(**{**known(Reversal, raw), "held": held, "done": tuple(raw["done"])})


def make(place: Place) -> None:
    """Make the folder. Nobody else may exchange what is about to be loaded, or read what people sent."""
    for folder in (place.home, place.home / place.model, place.folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)


@contextmanager
def changing(place: Place) -> Iterator[State]:
    """Read the state under a lock, let the caller change it, and write it: all of it or nothing."""
    make(place)
    with (place.folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = read(place) or State(model=place.model, stage=place.stage)
        before = to_json(state)
        yield state
        if to_json(state) != before:
            # The gateway need not read again what only says how far a rollout is.
            state.generation += {**to_json(state), "progress": None} != {**before, "progress": None}
            write_json(place.state_file, to_json(state))
        plan = gateway_plan(state)
        if read_json(place.gateway_file) != plan:  # also after a command that was killed right here
            write_json(place.gateway_file, plan)


def read_json(file: Path) -> Any:
    """The JSON in ``file``; None when there is none."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def write_json(file: Path, value: Any) -> None:
    """Replace ``file`` in one step; readers see the old or the new text, and a crash leaves one of them."""
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    with scratch.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(file)
