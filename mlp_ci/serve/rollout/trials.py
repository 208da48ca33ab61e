"""What a version has to answer before it gets traffic, and after: its own example, and what the team asks it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlp_ci.errors import OutsideError
from mlp_ci.progress import doing
from mlp_ci.report import Finding, Outcome
from mlp_ci.serve import artefacts, smoke

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.serve.smoke import Smoke
    from mlp_ci.serve.state import Place
    from mlp_ci.serve.targets import Release, Target

_NO_EXAMPLE = "the model was saved without an input example, so nothing was tried before it got traffic"


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The questions: an example that came with the model (None: it has none) and the lines of ``serve.smoke``."""

    example: bytes | None = None
    smoke: Sequence[Smoke] = ()

    @property
    def any(self) -> bool:
        return self.example is not None or bool(self.smoke)


def trials_of(release: Release, questions: Sequence[Smoke]) -> Trials:
    """What ``release`` is to be asked."""
    return Trials(example=artefacts.example_body(release.artefact), smoke=questions)


def asked(target: Target, place: Place, version: int | None, trials: Trials) -> str:
    """Ask all of it, of the version itself or (None) through the address that clients use; "" or what is wrong."""
    whom = f"version {version}" if version is not None else "what clients reach"
    doing(f"{place.stage}: asking {whom} what it has to know")
    try:
        if trials.example is not None:
            answer = target.ask(place, version, trials.example)
            if answer.status != 200:
                said = answer.body[:300].decode(errors="replace")
                return f"does not answer its own input example: it answers {answer.status}: {said}"
        for question in trials.smoke:
            answer = target.ask(place, version, question.body)
            bad = smoke.wrong(question, answer.status, answer.body)
            if bad:
                return f"does not answer the smoke file as it should: {bad}"
    except OutsideError as error:
        return f"does not answer: {error.what}"
    return ""


def passed(place: Place, trials: Trials, where: str) -> list[Finding]:
    """What to say when nothing was wrong. ``where``: whom it was asked."""
    if trials.example is None:
        example = Finding(check="contract", outcome=Outcome.SKIP, subject=place.stage, message=_NO_EXAMPLE)
    else:
        message = f"{where} answers its own input example"
        example = Finding(check="contract", outcome=Outcome.PASS, subject=place.stage, message=message)
    if not trials.smoke:
        return [example]
    message = f"{where} answers all {len(trials.smoke)} questions of the smoke file"
    return [example, Finding(check="smoke", outcome=Outcome.PASS, subject=place.stage, message=message)]
