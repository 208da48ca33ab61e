"""An attack as it stands in its file: what happens in which order, what must refuse it, and its honest twin."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
PLACES = ("status", "deploy", "linter", "runner", "log")
STOPS = {"status": ("status",), "deploy": ("deploy",), "both": ("status", "deploy")}
KEYS = {"title", "wants", "setup", "history", "version", "stage", "expect", "rules", "stops_at", "github", "honest"}
KEYS |= {"only", "about"}
# Which part of the whole an attack is about, in the order of the page.
ABOUT = {
    "people": "Who approves",
    "reviews": "What was approved, and when",
    "policy": "The policy, stages and time",
    "status": "The status on the pull request",
    "branch": "The way to the default branch",
    "registry": "The registry",
    "quarantine": "The quarantine",
    "file": "promotion.yaml itself",
    "workflows": "Workflows, runners and logs",
}


@dataclass(frozen=True)
class Story:
    """One history that is played to its end. ``rules``: place (status, deploy, …) → the rules that refuse it there.

    ``version`` is what the attacker wants in ``stage``; of an honest story it is what has to arrive there.
    """

    name: str
    title: str
    wants: str
    setup: dict[str, Any]
    history: tuple[dict[str, Any], ...]
    allowed: bool
    version: int
    stage: str
    rules: dict[str, tuple[str, ...]] = field(default_factory=dict)
    github: str = ""
    about: str = ""
    only: str = ""  # replay or workflows, for what only one of the two drivers can show

    @property
    def promotes(self) -> bool:
        """Whether it is about a promotion; the others are about linters, runners and logs."""
        return not set(self.rules) & {"linter", "runner", "log"}

    def __str__(self) -> str:
        return f"{self.name}-{'honest' if self.allowed else 'attack'}"


def load(file: Path) -> tuple[Story, Story]:
    """The attack and its honest twin."""
    raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    unknown = set(raw) - KEYS
    assert not unknown, f"{file.name}: {unknown}"
    assert raw["expect"] == "refused", file.name
    assert raw["about"] in ABOUT, file.name
    honest = raw["honest"]
    assert honest["expect"] == "allowed", file.name
    setup = raw.get("setup") or {}
    shared: dict[str, Any] = {
        "title": raw["title"],
        "wants": raw["wants"].strip(),
        "github": raw["github"].strip(),
        "about": raw["about"],
        "only": raw.get("only", ""),
    }
    attack = Story(
        name=file.stem,
        setup=setup,
        history=tuple(raw["history"]),
        allowed=False,
        version=raw.get("version", 2),
        stage=raw.get("stage", "production"),
        rules=_rules(raw),
        **shared,
    )
    twin = Story(
        name=file.stem,
        setup={**setup, **honest.get("setup", {})},
        history=tuple(changed(raw["history"], honest.get("changes", []))),
        allowed=True,
        version=honest.get("version", attack.version),
        stage=honest.get("stage", attack.stage),
        rules=dict.fromkeys(attack.rules, ()),
        **shared,
    )
    return attack, twin


def changed(history: list[dict[str, Any]], changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The history with the twin's changes. Each names a step by its ``id``: drop, instead, before or after."""
    made = list(history)
    for change in changes:
        if "begin" in change or "end" in change:
            made = [*change.get("begin", []), *made, *change.get("end", [])]
            continue
        [(how, id)] = [(key, change[key]) for key in ("drop", "instead", "before", "after") if key in change]
        at = next((i for i, step in enumerate(made) if step.get("id") == id), None)
        assert at is not None, f"no step has the id {id}"
        steps = change.get("do", [])
        start, end = {"drop": (at, at + 1), "instead": (at, at + 1), "before": (at, at), "after": (at + 1, at + 1)}[how]
        made[start:end] = steps
    return made


def _rules(raw: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    places = STOPS.get(raw["stops_at"], (raw["stops_at"],))
    assert set(places) <= set(PLACES), raw["stops_at"]
    rules = raw["rules"]
    return {place: tuple(rules[place] if isinstance(rules, dict) else rules) for place in places}


def files() -> list[Path]:
    return sorted(FOLDER.glob("*.yaml"))


def stories(*, promotes: bool = True, driver: str = "") -> list[Story]:
    """Every attack and every twin that ``driver`` can play."""
    found = [story for file in files() for story in load(file)]
    names = {s.name for s in found if not s.allowed and s.promotes}
    return [s for s in found if (s.name in names) == promotes and (not s.only or not driver or s.only == driver)]


def played_once(driver: str) -> list[Story]:
    """What a driver plays: all attacks, and of twins with the same history the first."""
    known = set()
    kept = []
    for story in stories(driver=driver):
        same = json.dumps([story.setup, _plain(story.history), story.version, story.stage], sort_keys=True, default=str)
        if not story.allowed or same not in known:
            kept.append(story)
            known.add(same)
    return kept


def _plain(history: tuple[dict[str, object], ...]) -> list[dict[str, object]]:
    return [{key: value for key, value in step.items() if key not in ("id", "says")} for step in history]
