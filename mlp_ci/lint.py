"""``mlp-ci lint``: the files that people write, checked without looking at anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.errors import InputError, Problem, SpecError
from mlp_ci.report import Finding, Outcome, Report
from mlp_ci.spec import (
    MODEL_FILE,
    PLATFORM_FILE,
    PROMOTION_FILE,
    ModelSpec,
    PromotionSpec,
    parse_model,
    parse_platform,
    parse_promotion,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PARSERS = {MODEL_FILE: parse_model, PROMOTION_FILE: parse_promotion, PLATFORM_FILE: parse_platform}


def lint_files(repo: Path, files: Sequence[Path]) -> Report:
    """Check ``files``, or every known file of ``repo``; raises SpecError with all problems of all files."""
    chosen = list(files) or [repo / name for name in PARSERS if (repo / name).exists()]
    if not chosen:
        msg = f"there is no {', '.join(PARSERS)} in {repo.resolve()}"
        raise InputError(msg, fix="run `mlp-ci init FOLDER` to start a model, or pass --path")
    problems: list[Problem] = []
    specs: dict[str, object] = {}
    for file in chosen:
        if file.name not in PARSERS:
            msg = f"{file} is not a file that mlp-ci knows"
            raise InputError(msg, fix=f"it knows {', '.join(PARSERS)}")
        try:
            specs[file.name] = PARSERS[file.name](_read(file), str(file))
        except SpecError as error:
            problems += error.problems
    problems += _agree(specs, repo)
    if problems:
        raise SpecError(problems)
    findings = [Finding(check="lint", outcome=Outcome.PASS, subject=str(f), message="is valid") for f in chosen]
    names = ", ".join(str(f) for f in chosen)
    return Report(command="lint", headline=f"{names}: no problems", findings=findings)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        what = f"the file cannot be read: {error.strerror}"
        fix = "correct the path, or put a file there that this user may read"
        raise SpecError([Problem(what=what, file=str(file), fix=fix)]) from error


def _agree(specs: dict[str, object], repo: Path) -> list[Problem]:
    """What only shows when the files are read together, or against the folder they stand in."""
    problems = []
    model, promotion = specs.get(MODEL_FILE), specs.get(PROMOTION_FILE)
    if isinstance(model, ModelSpec) and isinstance(promotion, PromotionSpec) and promotion.model != model.name:
        what = f"model is {promotion.model!r}, but model.yaml says {model.name!r}"
        problems.append(Problem(what=what, file=PROMOTION_FILE, fix=f"write `model: {model.name}`"))
    if isinstance(model, ModelSpec):
        for name in (model.train.params, model.train.environment.file):
            if name and not (repo / name).is_file():
                what = f"{name} does not exist"
                problems.append(Problem(what=what, file=MODEL_FILE, fix=f"add {name}, or name the right file"))
    return problems
