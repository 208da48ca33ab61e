"""The workflow templates: GitHub's format, our rules for permissions and secrets, references that lead somewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema
import pytest
import yaml

from mlp_ci.sandbox import workflows

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "workflow-templates"
NAMES = ("audit", "deploy", "model-ci", "monitor", "predict", "promotion", "rollback", "rollout")
OURS = re.compile(r"mlp-ci/mlp-ci/actions/([\w-]+)@v\d+")
TRIGGERS = {
    "audit": {"schedule", "workflow_dispatch"},
    "model-ci": {"push", "pull_request"},
    "promotion": {"pull_request_target", "pull_request_review", "schedule"},
    "deploy": {"push", "schedule", "workflow_dispatch"},
    "monitor": {"schedule", "workflow_dispatch"},
    "predict": {"schedule", "workflow_dispatch"},
    "rollback": {"workflow_dispatch"},
    "rollout": {"workflow_dispatch"},
}


def text(name: str) -> str:
    """The template as it is once someone has taken it up."""
    return (FOLDER / f"{name}.yml").read_text(encoding="utf-8").replace("$default-branch", "main")


def template(name: str) -> dict[str, Any]:
    loaded = yaml.load(text(name), Loader=workflows.Loader)
    assert isinstance(loaded, dict)
    return loaded


def properties(name: str) -> dict[str, Any]:
    loaded = json.loads((FOLDER / f"{name}.properties.json").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def steps(name: str) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(job id, job, step) of every step."""
    return [(id, job, step) for id, job in template(name)["jobs"].items() for step in job["steps"]]


def test_the_folder_is_flat_and_holds_pairs() -> None:
    files = {path.name for path in FOLDER.iterdir()}
    pairs = {f"{name}{ending}" for name in NAMES for ending in (".yml", ".properties.json")}
    assert files == pairs | {"mlp-ci.svg"}


@pytest.mark.parametrize("name", NAMES)
def test_properties_are_what_github_asks_for(name: str) -> None:
    schema = json.loads(Path(__file__).with_name("template.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(properties(name))
    assert properties(name)["name"] == template(name)["name"]
    assert (FOLDER / f"{properties(name)['iconName']}.svg").is_file()
    [pattern] = properties(name)["filePatterns"]
    assert re.search(pattern, "model.yaml")
    assert not re.search(pattern, "my-model.yaml")


def test_names_are_unique() -> None:
    assert len({properties(name)["name"] for name in NAMES}) == len(NAMES)


def test_the_icon_is_a_small_picture_without_scripts() -> None:
    root = ET.parse(FOLDER / "mlp-ci.svg").getroot()
    assert root.get("viewBox")
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "path", "circle", "rect", "g", "title"}


@pytest.mark.parametrize("name", NAMES)
def test_the_header_says_what_it_does_and_how_to_set_it_up(name: str) -> None:
    header = [line for line in text(name).splitlines() if line.startswith("#")]
    assert len(header[0]) > 40
    numbers = [match[1] for line in header if (match := re.match(r"#   (\d)\. ", line))]
    assert numbers == [str(number + 1) for number in range(len(numbers))]
    assert numbers, "no setup step"


@pytest.mark.parametrize("name", NAMES)
def test_triggers(name: str) -> None:
    on = template(name)["on"]
    assert set(on) == TRIGGERS[name]
    for event in ("push", "pull_request", "pull_request_target"):
        if event in on:
            assert on[event]["branches"] == ["main"]
    raw = (FOLDER / f"{name}.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"(?<!\$)\$[a-z][a-z-]+", raw)) <= {"$default-branch"}, "GitHub fills in no other placeholder"


@pytest.mark.parametrize("name", [name for name in NAMES if "schedule" in TRIGGERS[name]])
def test_schedules_keep_off_the_full_hour(name: str) -> None:
    for row in template(name)["on"]["schedule"]:
        assert not set(row["cron"].split()[0].split(",")) & {"0", "*", "30"}


@pytest.mark.parametrize("name", NAMES)
def test_permissions_are_granted_per_job_each_with_a_reason(name: str) -> None:
    assert template(name)["permissions"] == {}
    for job in template(name)["jobs"].values():
        assert isinstance(job["permissions"], dict)
        assert job["permissions"]
    grants = re.findall(r"^      ([a-z-]+): (?:read|write)(.*)$", text(name), re.MULTILINE)
    assert len(grants) == sum(len(job["permissions"]) for job in template(name)["jobs"].values())
    assert all(re.fullmatch(r" # .{10,}", reason) for _, reason in grants)


NEEDED = {
    "audit": {"contents": "write", "deployments": "write", "issues": "write", "pull-requests": "read"},
    "model-ci": {"contents": "write", "pull-requests": "write"},
    "promotion": {"contents": "read", "pull-requests": "write", "statuses": "write"},
    "deploy": {"contents": "write", "deployments": "write", "issues": "write", "pull-requests": "write"},
    "monitor": {"contents": "write", "pull-requests": "write"},
    "predict": {"contents": "read"},
    "rollback": {"contents": "write", "deployments": "write", "pull-requests": "write"},
    "rollout": {"contents": "write", "deployments": "write", "pull-requests": "write"},
}


@pytest.mark.parametrize("name", NAMES)
def test_no_job_may_do_more_than_its_command_does(name: str) -> None:
    assert list(template(name)["jobs"].values())[-1]["permissions"] == NEEDED[name]


def test_an_audit_writes_nothing_but_its_issue_unless_a_person_asks_for_a_repair() -> None:
    jobs = template("audit")["jobs"]
    looks = {"contents": "read", "deployments": "read", "issues": "write", "pull-requests": "read"}
    assert jobs["audit"]["permissions"] == looks
    assert not [step for step in jobs["audit"]["steps"] if "repair" in step["with"]]
    assert (jobs["audit"]["if"], jobs["repair"]["if"]) == ("${{ !inputs.repair }}", "${{ inputs.repair }}")


def test_a_merge_by_machine_says_which_permissions_it_needs() -> None:
    header = text("promotion").partition("\nname:")[0]
    assert "`merge: machine`" in header
    assert "`contents: write`" in header
    assert "`actions: write`" in header


@pytest.mark.parametrize("name", NAMES)
def test_every_command_that_asks_mlflow_gets_its_address(name: str) -> None:
    for _, _, step in steps(name):
        match = OURS.fullmatch(step["uses"])
        if match and match[1] not in ("validate", "data-diff"):
            assert step["with"]["tracking-uri"] == "${{ vars.MLFLOW_TRACKING_URI }}", match[1]
    assert "variable MLFLOW_TRACKING_URI" in text(name)


PLANNED = "${{ fromJSON(needs.plan.outputs.timeout-minutes) }}"


@pytest.mark.parametrize("name", NAMES)
def test_every_job_has_a_timeout_and_the_workflow_a_concurrency_group(name: str) -> None:
    loaded = template(name)
    minutes = {id: job["timeout-minutes"] for id, job in loaded["jobs"].items()}
    planned = {id for id, given in minutes.items() if given == PLANNED}
    assert planned == ({"train", "sweep"} if name == "model-ci" else set())
    assert all(1 <= given <= 360 for id, given in minutes.items() if id not in planned)
    assert loaded["concurrency"]["group"]
    cancels = {
        "audit": False,
        "model-ci": True,
        "promotion": True,
        "deploy": False,
        "monitor": False,
        "predict": False,
        "rollback": False,
        "rollout": False,
    }
    assert loaded["concurrency"]["cancel-in-progress"] == cancels[name]


def test_a_newer_training_displaces_an_older_one_and_no_registration_is_cut_off() -> None:
    loaded = template("model-ci")
    own = "${{ github.event_name == 'pull_request' && github.ref || github.run_id }}"
    assert loaded["concurrency"]["group"] == f"model-ci-{own}", "a push cancels nothing but trainings"
    groups = {id: job["concurrency"] for id, job in loaded["jobs"].items() if "concurrency" in job}
    assert groups == {
        "sweep": {"group": "sweep-${{ github.ref }}-${{ matrix.job }}", "cancel-in-progress": True},
        "train": {"group": "train-${{ github.ref }}", "cancel-in-progress": True},
    }


def test_what_ends_trouble_shares_neither_group_nor_runner_with_training() -> None:
    groups = {name: template(name)["concurrency"]["group"].partition("-")[0] for name in NAMES}
    assert len({groups[name] for name in ("deploy", "rollback", "rollout", "model-ci")} | {"train"}) == 5
    for name in ("deploy", "rollback", "rollout"):
        [job] = template(name)["jobs"].values()
        assert job["runs-on"] == "${{ vars.MLP_CI_DEPLOY_RUNNER || 'ubuntu-latest' }}"
    assert "MLP_CI_DEPLOY_RUNNER" not in text("model-ci")


@pytest.mark.parametrize("name", NAMES)
def test_every_uses_is_ours_or_pinned_and_every_input_exists(name: str) -> None:
    for _, _, step in steps(name):
        match = OURS.fullmatch(step["uses"])
        if match is None:
            assert re.fullmatch(r"actions/checkout@[0-9a-f]{40}", step["uses"])
            assert f"{step['uses']} # v" in text(name), "the version stands beside the commit"
            assert step["with"]["persist-credentials"] is False
            continue
        action = yaml.safe_load((ROOT / "actions" / match[1] / "action.yml").read_text(encoding="utf-8"))
        assert set(step.get("with", {})) <= set(action["inputs"])
        missing = {key for key, about in action["inputs"].items() if about.get("required")} - set(step.get("with", {}))
        assert not missing


@pytest.mark.parametrize("name", NAMES)
def test_outputs_that_steps_read_exist(name: str) -> None:
    uses = {step["id"]: OURS.fullmatch(step["uses"]) for _, _, step in steps(name) if "id" in step}
    for id, output in re.findall(r"steps\.([\w-]+)\.outputs\.([\w-]+)", text(name)):
        match = uses[id]
        assert match is not None
        action = yaml.safe_load((ROOT / "actions" / match[1] / "action.yml").read_text(encoding="utf-8"))
        assert output in action["outputs"]


@pytest.mark.parametrize("name", NAMES)
def test_no_secret_in_a_job_that_runs_anything_of_a_pull_request(name: str) -> None:
    """Judging approvals needs one, to see teams and the policy; its job only calls our action."""
    loaded = template(name)
    assert "secrets." not in json.dumps({key: value for key, value in loaded.items() if key != "jobs"})
    for id, job in loaded["jobs"].items():
        by_pull_request = any(event.startswith("pull_request") for event in loaded["on"])
        kept_out = "github.event_name == 'push' &&" in job.get("if", "")
        calls_us_alone = [OURS.sub(r"\1", step["uses"]) for step in job["steps"]] == ["approvals"]
        assert kept_out or not by_pull_request or calls_us_alone or "secrets." not in json.dumps(job), id
    assert ("pull_request" in loaded["on"]) is (name == "model-ci"), "only there a pull request's code runs"


def test_training_refuses_the_code_of_forks() -> None:
    """Two jobs look at the event themselves; every other one needs the plan to have succeeded."""
    jobs = template("model-ci")["jobs"]
    same = "github.event.pull_request.head.repo.full_name == github.repository"
    assert jobs["data"]["if"] == f"github.event_name == 'pull_request' && {same}"
    assert jobs["plan"]["if"] == f"github.event_name == 'push' || {same}"
    behind = {"plan"}
    for id, job in jobs.items():
        if id in ("data", "plan"):
            continue
        needs = {job["needs"]} if isinstance(job["needs"], str) else set(job["needs"])
        assert needs <= behind, f"{id} waits for something that may run for forks"
        asks = job["if"]
        assert "needs." in asks, id
        if "!cancelled()" in asks or "always()" in asks:  # then a skipped job before it stops nothing by itself
            assert any(f"needs.{n}.result == 'success'" in asks for n in needs), id
        behind.add(id)


def test_a_job_that_runs_the_code_of_a_pull_request_may_write_nothing() -> None:
    jobs = template("model-ci")["jobs"]
    for id, job in jobs.items():
        used = {OURS.sub(r"\1", step["uses"]) for step in job["steps"]}
        if used & {"train", "evaluate", "sweep"}:
            assert job["permissions"] == {"contents": "read"}, id
            assert "secrets." not in json.dumps(job), id
    assert jobs["data"]["permissions"] == {"contents": "read", "pull-requests": "write"}
    [checkout] = [step for step in jobs["data"]["steps"] if "checkout" in step["uses"]]
    assert checkout["with"]["fetch-depth"] == 0, "without history there is no version to compare with"


def test_a_skipped_training_skips_no_verdict_and_a_failed_one_does() -> None:
    jobs = template("model-ci")["jobs"]
    from mlp_ci.sandbox import expressions

    def runs(id: str, event: str = "push", **results: str) -> bool:
        needs = {
            name: {"result": result, "outputs": {"judge": "true", "train": "true"}} for name, result in results.items()
        }
        condition = jobs[id]["if"].strip().removeprefix("${{").removesuffix("}}").replace("!cancelled()", "true")
        return bool(expressions.evaluate(condition, {"needs": needs, "github": {"event_name": event}}))

    for searched in ("success", "skipped", "failure"):
        assert runs("train", plan="success", sweep=searched), "training does what a search left undone"
        assert not runs("train", plan="failure", sweep=searched)
    assert not runs("train", plan="success", sweep="cancelled"), "somebody newer searches"
    for training, judged in (("success", True), ("skipped", True), ("failure", False), ("cancelled", False)):
        assert runs("judge", plan="success", train=training) == judged, training
        assert not runs("judge", plan="failure", train=training)
    for judged, told in (("success", True), ("failure", True), ("skipped", False), ("cancelled", False)):
        assert runs("report", "pull_request", plan="success", judge=judged) == told, judged
        assert not runs("report", plan="success", judge=judged), "after a push there is nobody to tell"
    assert runs("register", judge="success")
    assert not runs("register", "pull_request", judge="success")
    assert not any(runs("register", judge=result) for result in ("failure", "skipped", "cancelled"))


def test_only_judging_and_what_comes_after_it_has_held_out_data() -> None:
    jobs = template("model-ci")["jobs"]
    assert [OURS.sub(r"\1", step["uses"]) for step in jobs["train"]["steps"]][1:] == ["train"]
    order = list(jobs)
    assert order.index("train") < order.index("judge") < order.index("register")


def test_the_workflow_on_pull_request_target_checks_nothing_out_and_runs_no_shell() -> None:
    for _, _, step in steps("promotion"):
        assert "checkout" not in step["uses"]
        assert "run" not in step
    assert "paths" not in template("promotion")["on"]["pull_request_target"], "a required status must always come"


@pytest.mark.parametrize("name", NAMES)
def test_no_template_runs_shell(name: str) -> None:
    assert not [step for _, _, step in steps(name) if "run" in step]


def test_the_loop_goes_through_the_actions_in_order() -> None:
    order = {name: [OURS.fullmatch(step["uses"]) for _, _, step in steps(name)] for name in NAMES}
    names = {name: [match[1] for match in matches if match] for name, matches in order.items()}
    assert names["model-ci"] == ["data-diff", "plan", "validate", "sweep", "train", "evaluate", "report", "register"]
    assert names["audit"] == ["audit", "audit"]
    assert names["monitor"] == ["monitor", "cost", "retrain"]
    assert names["predict"] == ["predict"]
    assert names["rollout"] == ["rollout-steer"]
    assert (names["promotion"], names["deploy"], names["rollback"]) == (["approvals"], ["deploy"], ["rollback"])


@pytest.mark.parametrize("name", NAMES)
def test_the_sandbox_reads_the_template_as_github_does(name: str) -> None:
    workflow = workflows.parse(f".github/workflows/{name}.yml", text(name))
    event = {"promotion": "pull_request_review", "rollback": "workflow_dispatch", "rollout": "workflow_dispatch"}.get(
        name, "push"
    )
    if name in ("monitor", "audit", "predict"):
        event = "schedule"
    cron = {"audit": "37 * * * *", "predict": "41 3 * * *", "promotion": "19,49 * * * *"}.get(name, "23 * * * *")
    trigger = workflows.Trigger(event, "submitted", "refs/heads/main", ["promotion.yaml", "train.py"], cron)
    assert workflows.starts(workflow, trigger)
    elsewhere = workflows.Trigger("push", "", "refs/heads/topic", ["promotion.yaml"])
    assert not workflows.starts(workflow, elsewhere)


def test_all_linters_are_content() -> None:
    """zizmor with its strictest persona, and actionlint where `make lint` has put it."""
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "lint_workflows.py", "--no-install"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_exception_from_the_linters_is_needed_and_has_its_reason(tmp_path: Path) -> None:
    """Without the exceptions of .github/zizmor.yml exactly these are found; those beside a line give their reason."""
    empty = tmp_path / "zizmor.yml"
    empty.write_text("rules: {}\n")
    command = ["zizmor", "--offline", "--quiet", "--no-progress", "--persona=auditor", "--format=json-v1"]
    done = subprocess.run(
        [Path(sys.executable).with_name(command[0]), *command[1:], "--config", empty, *sorted(FOLDER.glob("*.yml"))],
        capture_output=True,
        text=True,
        check=False,
    )
    found = {
        (finding["ident"], Path(place["symbolic"]["key"]["Local"]["verbatim_path"]).name)
        for finding in json.loads(done.stdout)
        for place in finding["locations"]
    }
    rules = yaml.safe_load((ROOT / ".github" / "zizmor.yml").read_text())["rules"]
    pinned_by_tag = {("unpinned-uses", f"{name}.yml") for name in NAMES}
    assert found - pinned_by_tag == {(rule, file) for rule, about in rules.items() for file in about.get("ignore", [])}
    files = [*ROOT.glob("actions/*/action.yml"), *FOLDER.glob("*.yml"), *ROOT.glob(".github/workflows/*.yml")]
    beside = [line for file in files for line in file.read_text().splitlines() if "zizmor: ignore" in line]
    assert all(re.search(r"# zizmor: ignore\[[a-z-]+\] .{20,}", line) for line in beside)


def test_the_linters_find_what_is_wrong(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yml"
    bad.write_text(
        "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v4\n"
        "      - run: echo ${{ github.event.head_commit.message }}\n"
    )
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "lint_workflows.py", "--no-install", bad],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "template-injection" in done.stdout
    assert "unpinned-uses" in done.stdout
