"""What the container of an image must do before anybody gets the image: start, say who it is, answer, refuse, end.

It runs as it will run where it serves (nobody's rights, a read-only root), without any network at all, and is asked
from inside by its own Python. So this works with an engine on another machine too.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlp_ci.errors import GateError, OutsideError
from mlp_ci.progress import doing
from mlp_ci.report import Finding, Outcome
from mlp_ci.serve import artefacts, smoke
from mlp_ci.serve.package import naming

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.containers import Answer, Engine
    from mlp_ci.serve.package.image import Subject

LABEL = "mlp-ci.contract"
START_SECONDS = 90
STOP_SECONDS = 20
KILLED = 137
# What any container of a version is started with, wherever it serves.
CONFINED = (
    *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--pids-limit", "512"),
)
# Waits until the server answers, then asks it all that it is given; runs in the container.
_ASK = """\
import base64, json, sys, time, os, http.client
given = json.load(sys.stdin)
def ask(method, path, body):
    c = http.client.HTTPConnection("127.0.0.1", given["port"], timeout=30)
    try:
        c.request(method, path, body, {"Content-Type": "application/json"})
        a = c.getresponse()
        return a.status, a.read()
    finally:
        c.close()
end = time.monotonic() + given["seconds"]
while True:
    try:
        ask("GET", "/health", None)
        break
    except OSError:
        if time.monotonic() > end:
            sys.exit("it does not answer")
        time.sleep(0.1)
answers = []
for method, path, body in given["asks"]:
    try:
        status, said = ask(method, path, None if body is None else base64.b64decode(body))
    except Exception as error:
        status, said = 0, repr(error).encode()
    answers.append([status, base64.b64encode(said[:1000000]).decode()])
print(json.dumps({"uid": os.getuid(), "answers": answers}))
"""


@dataclass(frozen=True)
class Question:
    """One request to the container: what it is for, and the answer that it must get."""

    check: str
    method: str
    path: str
    body: bytes | None = None
    smoke: smoke.Smoke | None = None


def tested(engine: Engine, image: str, subject: Subject, questions: Sequence[smoke.Smoke]) -> list[Finding]:
    """Start the image and ask it; the findings of what it answered. Nothing of the container is left.

    Raises GateError when it does not start at all, OutsideError when the engine fails.
    """
    doing("asking the image what it must answer")
    name = f"mlp-ci-contract-{uuid.uuid4().hex[:12]}"
    started = engine.ask(
        *("run", "--detach", "--name", name, "--label", f"{LABEL}={subject.digest}", "--network", "none"),
        *("--pull", "never", "--no-healthcheck", *CONFINED, image),
    )
    try:
        if started.code:
            msg = f"the engine does not run the image {image}"
            raise OutsideError(msg, why=started.why, fix="mend what the engine says, and run it again")
        asked = _questions(subject, questions)
        uid, answers = _answers(engine, name, asked)
        findings = [_judged(question, answer, subject) for question, answer in zip(asked, answers, strict=True)]
        return [*findings, _user(uid), _end(engine, name)]
    finally:
        engine.remove(name)


def _questions(subject: Subject, smokes: Sequence[smoke.Smoke]) -> list[Question]:
    example = artefacts.example_body(subject.folder)
    return [
        Question("health", "GET", "/health"),
        Question("version", "GET", "/version"),
        *([Question("example", "POST", "/invocations", example)] if example else []),
        *(Question("smoke", "POST", "/invocations", s.body, s) for s in smokes),
        Question("refuses", "POST", "/invocations", b"{no json"),
        Question("refuses", "POST", "/invocations", b'{"dataframe_split": {"columns": ["x", "x"]}}'),
    ]


def _answers(engine: Engine, name: str, asked: Sequence[Question]) -> tuple[int, list[tuple[int, bytes]]]:
    """The user that the server runs as, and its answers as (status, body)."""
    asks = [(q.method, q.path, None if q.body is None else base64.b64encode(q.body).decode()) for q in asked]
    given = json.dumps({"port": naming.PORT, "seconds": START_SECONDS, "asks": asks}).encode()
    done = engine.ask("exec", "--interactive", name, "python3", "-I", "-c", _ASK, stdin=given)
    try:
        told = json.loads(done.out)
        return int(told["uid"]), [(int(status), base64.b64decode(said)) for status, said in told["answers"]]
    except (ValueError, KeyError, TypeError):
        said = last_words(engine.ask("logs", "--tail", "200", name))
        msg = f"the server of the image does not start: {said or done.why}"
        why = "what cannot start here cannot serve"
        raise GateError(msg, why=why, fix="mend it: a library that the base lacks needs another --base") from None


def last_words(logs: Answer) -> str:
    """The line of a container's log that says best why it ended."""
    text = logs.out + logs.err
    lacking = re.findall(r"(\S+: cannot open shared object file|\S+: version `GLIBC\S* not found)", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    refused = [line.removeprefix("refused: ") for line in lines if line.startswith("refused: ")]
    return str((lacking or refused or lines or [""])[-1])[:400]


def _judged(question: Question, answer: tuple[int, bytes], subject: Subject) -> Finding:
    status, said = answer
    shown = said[:200].decode(errors="replace")
    if question.smoke is not None:
        wrong = smoke.wrong(question.smoke, status, said)
        good = f"line {question.smoke.line} of the smoke file is answered as it should be"
    elif question.check == "refuses":
        good = f"what is no question is refused with {status}"
        wrong = "" if 400 <= status < 500 else f"what is no question gets {status}: {shown}"
    elif question.check == "example":
        good = "the model's own input example is answered"
        wrong = smoke.wrong(smoke.Smoke(0, b"", None), status, said).removeprefix("line 0: ")
    else:
        good = f"it says that it is version {subject.version} ({subject.digest[:19]}…)"
        wrong = "" if status == 200 and _is(said, subject) else f"{question.path} answers {status}: {shown}"
    outcome = Outcome.FAIL if wrong else Outcome.PASS
    return Finding(check=question.check, outcome=outcome, subject="image", message=wrong or good)


def _is(said: bytes, subject: Subject) -> bool:
    try:
        told = json.loads(said)
        return (told["version"], told["digest"]) == (subject.version, subject.digest)
    except (ValueError, KeyError, TypeError):
        return False


def _user(uid: int) -> Finding:
    outcome = Outcome.PASS if uid == naming.USER else Outcome.FAIL
    return Finding(check="user", outcome=outcome, subject="image", message=f"it runs as user {uid}")


def _end(engine: Engine, name: str) -> Finding:
    """Whether it ends when it is asked to."""
    engine.ask("stop", "--time", str(STOP_SECONDS), name)
    state = (engine.describe("container", name) or {}).get("State") or {}
    killed = state.get("ExitCode") == KILLED
    outcome = Outcome.FAIL if killed else Outcome.PASS
    message = "it does not end within 20 s of being asked to" if killed else "it ends when it is asked to"
    return Finding(check="ends", outcome=outcome, subject="image", message=message)
