"""What a model repository needs in its files: valid specs, tracked data, workflows that name actions there are."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError, MlpError, SpecError
from mlp_ci.git import require_repository
from mlp_ci.report import Finding, Outcome
from mlp_ci.scaffold import shipped
from mlp_ci.spec import MODEL_FILE, PROMOTION_FILE, load_model, load_promotion

if TYPE_CHECKING:
    from pathlib import Path

    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec

_USES = re.compile(r"^\s*(?:-\s+)?uses:\s*[\"']?(?P<owner>[\w.-]+)/[\w.-]+/actions/(?P<action>[\w-]+)@", re.MULTILINE)
_PROGRAM = {"uv": "uv", "conda": "conda", "image": "docker"}


def look(ctx: Context) -> list[Finding]:
    """Nothing to check, and said so, in a folder that is no model repository."""
    if not (ctx.repo / MODEL_FILE).exists():
        message = f"no {MODEL_FILE} in {ctx.repo}: only the machine is checked"
        fix = "`mlp-ci init FOLDER` starts a model; --path names the folder of one"
        return [Finding(check="model", outcome=Outcome.SKIP, message=message, fix=fix)]
    findings = [_commits(ctx.repo), *_specs(ctx.repo)]
    model = model_of(ctx.repo)
    if model is not None:
        findings += [*_data(ctx.repo, model), *_environment(model)]
    return findings + _workflows(ctx.repo)


def model_of(repo: Path) -> ModelSpec | None:
    """model.yaml, if it is there and valid; the findings about it come from :func:`look` alone."""
    try:
        return load_model(repo)
    except MlpError:
        return None


def _commits(repo: Path) -> Finding:
    try:
        require_repository(repo)
    except InputError as error:
        return Finding(check="repository", outcome=Outcome.FAIL, message=error.what, fix=error.fix)
    return Finding(check="repository", outcome=Outcome.PASS, message="is a git repository with a commit")


def _specs(repo: Path) -> list[Finding]:
    findings = []
    for name, load in ((MODEL_FILE, load_model), (PROMOTION_FILE, load_promotion)):
        if not (repo / name).exists():
            fix = f"printf 'apiVersion: mlp-ci/v1\\nmodel: NAME\\nstages: {{}}\\n' > {name}"
            findings.append(
                Finding(check="spec", outcome=Outcome.FAIL, subject=name, message="does not exist", fix=fix)
            )
            continue
        try:
            load(repo)
        except SpecError as error:
            findings += [
                Finding(
                    check="spec",
                    outcome=Outcome.FAIL,
                    subject=name,
                    message=p.what,
                    fix=p.fix or "mlp-ci lint",
                    file=p.file,
                    line=p.line,
                    column=p.column,
                )
                for p in error.problems
            ]
        else:
            findings.append(Finding(check="spec", outcome=Outcome.PASS, subject=name, message="is valid"))
    return findings


def _data(repo: Path, model: ModelSpec) -> list[Finding]:
    from mlp_ci.dvc import tracked_digest

    findings = []
    for path in dict.fromkeys((model.data.train, model.data.test)):
        try:
            message = f"is tracked by DVC as {tracked_digest(repo, path)}"
        except InputError as error:
            write = "" if (repo / path).exists() or model.data.refresh is None else f"{model.data.refresh.command} && "
            fix = f"{write}dvc add {path} && dvc push && git add {path}.dvc && git commit -m 'Track {path}'"
            findings.append(
                Finding(check="data", outcome=Outcome.FAIL, message=error.what, fix=fix if write else error.fix)
            )
        else:
            findings.append(Finding(check="data", outcome=Outcome.PASS, subject=path, message=message))
    return findings


def _environment(model: ModelSpec) -> list[Finding]:
    """Whether what makes the training environment is on this machine."""
    kind = model.train.environment.kind
    program = _PROGRAM.get(kind)
    if program is None:
        return []
    if shutil.which(program):
        return [Finding(check="environment", outcome=Outcome.PASS, subject=kind, message=f"{program} is installed")]
    fix = "pip install uv" if program == "uv" else f"install {program}, or train on a runner that has it"
    message = f"model.yaml trains in `{kind}`, and {program} is not installed"
    return [Finding(check="environment", outcome=Outcome.FAIL, subject=kind, message=message, fix=fix)]


OPTIONAL = ("predict.yml",)  # for models whose predictions are wanted as files


def _workflows(repo: Path) -> list[Finding]:
    known = {folder.name for folder in shipped("actions").iterdir() if (folder / "action.yml").is_file()}
    findings = []
    for template in sorted(shipped("workflow-templates").glob("*.yml")):
        name = f".github/workflows/{template.name}"
        file = repo / name
        if not file.is_file() and template.name in OPTIONAL:
            continue
        if not file.is_file():
            fix = "`mlp-ci init --update .`, or on GitHub: Actions, New workflow, and choose it"
            findings.append(
                Finding(check="workflow", outcome=Outcome.FAIL, subject=name, message="does not exist", fix=fix)
            )
            continue
        used = [use["action"] for use in _USES.finditer(file.read_text(encoding="utf-8", errors="replace"))]
        strange = sorted(set(used) - known)
        if strange:
            message = f"uses actions that this mlp-ci does not have: {', '.join(strange)}"
            fix = f"use one of {', '.join(sorted(known))}"
            findings.append(
                Finding(check="workflow", outcome=Outcome.FAIL, subject=name, message=message, fix=fix, file=name)
            )
        else:
            message = f"runs {', '.join(dict.fromkeys(used))}" if used else "runs no action of mlp-ci"
            findings.append(Finding(check="workflow", outcome=Outcome.PASS, subject=name, message=message))
    return findings
