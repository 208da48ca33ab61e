"""Every composite action: thin, described, one to one with its command, nothing from outside in a line of shell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
from ruamel.yaml import YAML

from mlp_ci.cli import app

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "validate",
    "plan",
    "train",
    "sweep",
    "reproduce",
    "evaluate",
    "report",
    "register",
    "package",
    "approvals",
    "deploy",
    "rollout-steer",
    "rollback",
    "audit",
    "monitor",
    "cost",
    "retrain",
    "data-diff",
    "predict",
)
OUTPUTS = {
    "validate": {"data-digest"},
    "plan": {
        *("train", "judge", "sweep", "reason", "runs-on", "judge-runs-on", "timeout-minutes", "gpus", "matrix"),
        *("estimated-usd", "train-key", "run-id"),
    },
    "train": {"run-id", "train-key", "trained"},
    "sweep": {"sweep-run", "trials", "best-trial", "best-value"},
    "reproduce": {"result", "run-id"},
    "evaluate": {"gate", "evidence"},
    "report": {"gate", "report", "comment"},
    "register": {"version", "digest", "pull-request"},
    "package": {"image", "image-id"},
    "approvals": {"approved"},
    "deploy": {"deployed", "address", "rollout"},
    "rollout-steer": {"rollout", "version", "pull-request"},
    "rollback": {"version", "pull-request"},
    "audit": {"agrees"},
    "monitor": {"drifted", "report"},
    "cost": {"total-usd"},
    "retrain": {"pull-request"},
    "data-diff": {"changed"},
    "predict": {"rows", "skipped", "version", "digest", "predictions", "predicted"},
}
# An action of a command in a group is called after both.
WORDS = {"data-diff": "data diff", "rollout-steer": "rollout steer"}
NOT_OPTIONS = {"token", "tracking-uri"}


def action(command: str) -> dict[str, Any]:
    # ruamel refuses a key that stands twice, as act and GitHub do; PyYAML takes the last.
    loaded = YAML(typ="safe").load((ROOT / "actions" / command / "action.yml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def options(command: str) -> dict[str, Any]:
    """Long option without its dashes, or argument that must be given or has a variable → click parameter."""
    found: Any = typer.main.get_command(app)
    for word in WORDS.get(command, command).split():
        found = found.commands[word]
    given = [p for p in found.params if p.param_type_name != "argument" or p.required or p.envvar]
    return {
        flag.removeprefix("--"): parameter
        for parameter in given
        for flag in parameter.opts
        if (flag.startswith("--") or parameter.param_type_name == "argument") and flag != "--help"
    }


def test_every_command_has_its_action_and_no_action_is_without_a_command() -> None:
    found = {path.parent.name for path in (ROOT / "actions").glob("*/action.yml")}
    assert found == set(COMMANDS)
    assert not list((ROOT / "actions").rglob("action.yaml")), "GitHub looks for action.yml first"


@pytest.mark.parametrize("command", COMMANDS)
def test_an_action_is_short_and_described(command: str) -> None:
    text = (ROOT / "actions" / command / "action.yml").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    loaded = action(command)
    assert loaded["name"] == f"mlp-ci {WORDS.get(command, command)}"
    assert len(loaded["description"]) > 20
    for kind in ("inputs", "outputs"):
        for name, about in loaded[kind].items():
            assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name), f"{name} is not in kebab case"
            assert about["description"].endswith("."), f"{name} has no sentence that describes it"


@pytest.mark.parametrize("command", COMMANDS)
def test_inputs_are_the_options_of_the_command(command: str) -> None:
    inputs = action(command)["inputs"]
    assert set(inputs) - NOT_OPTIONS == set(options(command))
    assert set(inputs) >= NOT_OPTIONS


@pytest.mark.parametrize("command", COMMANDS)
def test_defaults_are_those_of_the_command(command: str) -> None:
    """An input left out has to mean what the option left out means; empty is always "not given"."""
    for name, parameter in options(command).items():
        default = action(command)["inputs"][name].get("default", "")
        if default:
            expected = str(parameter.default).lower() if isinstance(parameter.default, bool) else str(parameter.default)
            assert default == expected, name


@pytest.mark.parametrize("command", COMMANDS)
def test_every_input_reaches_the_command_by_the_variable_it_reads(command: str) -> None:
    [step] = action(command)["runs"]["steps"]
    wired = {name: re.fullmatch(r"\$\{\{ inputs\.([\w-]+) \}\}", value) for name, value in step["env"].items()}
    assert all(wired.values())
    found = {match[1]: name for name, match in wired.items() if match}
    assert found.pop("token") == "GITHUB_TOKEN"
    assert found.pop("tracking-uri") == "MLP_CI_TRACKING_URI"
    variables = {name: parameter.envvar for name, parameter in options(command).items()}
    assert found == variables


@pytest.mark.parametrize("command", COMMANDS)
def test_there_is_no_logic_and_no_expression_in_the_shell(command: str) -> None:
    runs = action(command)["runs"]
    assert runs["using"] == "composite"
    [step] = runs["steps"]
    assert set(step) == {"id", "shell", "env", "run"}
    assert step["shell"] == "bash"
    assert step["run"] == f'exec bash "$GITHUB_ACTION_PATH/../setup/run.sh" {WORDS.get(command, command)}'


@pytest.mark.parametrize("command", COMMANDS)
def test_outputs_come_from_the_step_by_their_own_name(command: str) -> None:
    outputs = action(command)["outputs"]
    assert set(outputs) == OUTPUTS[command] | {"outcome"}
    for name, about in outputs.items():
        assert about["value"] == "${{ steps.run.outputs." + name + " }}"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_default_token_is_the_jobs_own(command: str) -> None:
    assert action(command)["inputs"]["token"]["default"] == "${{ github.token }}"


def test_actions_of_others_are_pinned_by_commit() -> None:
    for path in (ROOT / "actions").glob("*/action.yml"):
        for uses in re.findall(r"uses:\s*(\S+)", path.read_text(encoding="utf-8")):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", uses), f"{path}: {uses}"
