"""The exceptions of mlp-ci. Every expected failure is one of these; anything else is a bug in mlp-ci.

MlpError
├── InputError          2   bad usage, a bad file, or code of the team that breaks a contract
│   └── SpecError       2   model.yaml, promotion.yaml or platform.yaml: all problems of the file at once
├── GateError           3   a gate or a budget said no
├── NothingToDo         4   the world already is as git wants it
├── NotApproved         5   the policy does not allow this yet
├── RolloutAborted      6   the rollout was aborted and rolled back
└── OutsideError        7   an outside system failed; a retry may help

Deep code raises; only ``mlp_ci.cli`` and ``mlp_ci.presenter`` catch, print and exit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_OK = 0
EXIT_BUG = 1
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell reports it


class MlpError(Exception):
    """An expected failure: what is wrong, why it matters, and the exact change or command that mends it."""

    exit_code: ClassVar[int] = EXIT_BUG

    def __init__(
        self,
        what: str,
        *,
        why: str = "",
        fix: str = "",
        file: str = "",
        line: int = 0,
        column: int = 0,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix
        self.file = file
        self.line = line
        self.column = column

    @property
    def where(self) -> str:
        """``file:line:column``, as far as it is known; empty when the error is about no file."""
        if not self.file:
            return ""
        return ":".join([self.file, *(str(n) for n in (self.line, self.column) if n)])


class InputError(MlpError):
    """Bad usage, a bad input file, or the team's code breaking a contract; a retry alone will not help."""

    exit_code = 2


class GateError(MlpError):
    """A gate or a budget said no."""

    exit_code = 3


class NothingToDo(MlpError):
    """There is nothing to do; not a failure of anything."""

    exit_code = 4


class NotApproved(MlpError):
    """The policy does not allow this promotion (yet)."""

    exit_code = 5


class RolloutAborted(MlpError):
    """The rollout was aborted; traffic is back on the version before."""

    exit_code = 6


class OutsideError(MlpError):
    """GitHub, MLflow, a DVC remote, a cluster or the machine failed; a retry may help."""

    exit_code = 7


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong in one place of an input file; ``excerpt`` is the offending line as it stands."""

    what: str
    file: str
    line: int = 0
    column: int = 0
    excerpt: str = ""
    fix: str = ""

    @property
    def where(self) -> str:
        return ":".join([self.file, *(str(n) for n in (self.line, self.column) if n)])


class SpecError(InputError):
    """All problems of one or more input files, in the order of their lines."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        ordered = sorted(problems, key=lambda p: (p.file, p.line, p.column))
        first = ordered[0]
        count = f" (and {len(ordered) - 1} more)" if len(ordered) > 1 else ""
        super().__init__(first.what + count, fix=first.fix, file=first.file, line=first.line, column=first.column)
        self.problems = tuple(ordered)
