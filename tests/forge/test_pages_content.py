"""What the forge's pages show: hostile text as text, code, issues, runs and what is live."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import pytest

from mlp_ci.sandbox.forge import issues, pushes, repositories, runs
from mlp_ci.sandbox.forge.pages import markdown
from mlp_ci.sandbox.forge.records import CheckRun, Deployment, DeploymentStatus, Event, Issue
from mlp_ci.sandbox.forge.repos import ZERO
from mlp_ci.sandbox.forge.store import stamp
from tests.forge.page_site import FILES, HOME, Site, open_site, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path / "forge") as opened:
        yield opened


# --------------------------------------------------------------- hostile text

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1)) [y](data:text/html;base64,PHN2Zz4=) [z](vbscript:x)",
    "![x](https://evil.test/pixel.png)",
    "</details></div></main><form action=https://evil.test><input name=token>",
    "<details><summary>\n\n<a href='javascript:alert(1)'>\n\n</details></article>",
    '<sub onclick="alert(1)">x</sub> <svg/onload=alert(1)> <iframe src=//evil.test>',
    "<!-- hidden --> &lt;script&gt; `</code><script>` \n\n    </pre><script>\n",
    '"><script>alert(1)</script>',
    'https://evil.test/"onmouseover=alert(1) http://[::1 <http://x"y>',
)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_markdown_becomes_text(text: str) -> None:
    html = markdown.render(text)
    tags = re.findall(r"<\s*/?\s*([a-zA-Z0-9]+)([^>]*)>", html)
    assert {name for name, _ in tags} <= {"p", "a", "details", "summary", "sub", "code", "pre", "br"}
    for _, attributes in tags:
        names = set(re.findall(r"([\w-]+)=", re.sub(r'"[^"]*"', '""', attributes)))
        assert names <= {"href", "rel"}, html
    assert not re.search(r'href="\s*(javascript|data|vbscript):', html)
    assert html.count("<details>") == html.count("</details>")
    assert html.count("<summary>") == html.count("</summary>")


def test_markdown_shows_what_people_write() -> None:
    html = markdown.render(
        "| a | b |\n|---|---:|\n| x | 1 |\n\n- [x] done\n- [ ] open\n\n~~old~~ see https://a.test/x?y=1. "
        "<!-- marker -->\n\n<details><summary>More</summary>\n\n**deep**\n\n</details>\n\n<sub>small</sub>",
    )
    assert '<td class="right">1</td>' in html
    assert "style=" not in html
    assert "☑ done" in html
    assert "☐ open" in html
    assert "<s>old</s>" in html
    assert '<a href="https://a.test/x?y=1" rel="nofollow noopener noreferrer">https://a.test/x?y=1</a>.' in html
    assert "marker" not in html
    assert "<details><summary>More</summary>" in html
    assert "<sub>small</sub>" in html


def test_hostile_names_and_texts_run_nothing_on_any_page(site: Site) -> None:
    evil = "<script>alert(1)</script>"
    site.pull(title=f"T {evil}", body=f'{evil}\n\n<img src=x onerror="alert(2)">')
    issues.add_comment(site.forge, site.repo, site.actor("bob"), site.forge.store.find(Issue)[0], HOSTILE[1])
    issue = issues.open_issue(site.forge, site.repo, site.actor("alice"), evil, evil)
    issues.add_labels(site.forge, site.repo, issue, [evil])
    repositories.commit_files(site.forge, site.repo, site.actor("alice"), {f"a{evil[:8]}": evil.encode()}, evil, "main")
    run = site.run()
    job = runs.create_job(site.forge, run, evil)
    runs.append_log(site.forge, run, f"{evil}\n::group::{evil}\nx\n", job)
    check = site.forge.store.get(CheckRun, job.check_run_id)
    site.forge.store.update(check, output={"title": evil, "summary": evil, "text": evil})
    tip = site.forge.git.resolve(site.repo, "main")
    alice = site.visitor("alice")
    for path in (
        "/", HOME, f"{HOME}/pulls", f"{HOME}/pull/1", f"{HOME}/pull/1/files", f"{HOME}/issues", f"{HOME}/issues/2",
        f"{HOME}/actions", f"{HOME}/actions/runs/{run.id}", f"{HOME}/commit/{tip}", f"{HOME}/blob/main/src/train.py",
        f"{HOME}/blob/main/a%3Cscript%3E", f"{HOME}/tree/main",
    ):  # fmt: skip
        answer = alice.http.get(path)
        assert answer.status_code == 200, path
        assert re.findall(r"<script[^>]*>", answer.text) == ['<script src="/-/page.js" defer>'], path
        assert not re.search(r"<[^>]*\sonerror=", answer.text), path
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "style=" not in answer.text


def test_a_raw_file_cannot_act_as_a_page(site: Site) -> None:
    answer = site.visitor("alice").http.get(f"{HOME}/raw/main/page.html")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


# --------------------------------------------------------------- code, issues, what is live


def test_a_repository_shows_its_readme_files_commits_and_what_is_live(site: Site) -> None:
    store, repo = site.forge.store, site.repo
    tip = site.forge.git.resolve(repo, "main") or ""
    made = {"creator_id": site.actor("bob").user.id, "created_at": stamp(), "environment": "production"}
    for version, state in ((1, "success"), (2, "failure")):
        deployment = store.insert(
            Deployment, repo_id=repo.id, sha=tip, ref="main", task="deploy", payload={"version": version},
            production=True, transient=False, **made,
        )  # fmt: skip
        place = {"environment_url": "http://127.0.0.1:1/", "log_url": "", "description": ""}
        store.insert(DeploymentStatus, deployment_id=deployment.id, state=state, **place, **made)
    alice = site.visitor("alice")
    html = alice.read(HOME)
    assert "<h1>Flights</h1>" in html
    assert f'href="{HOME}/blob/main/src/train.py"' in html
    assert f'<img src="{HOME}/raw/main/docs/plot.png" alt="plot">' in html
    assert f'href="{HOME}/tree/main/src"' in html
    for page in (html, alice.read("/")):
        assert "production : version 1" in text_of(page)
        assert 'href="http://127.0.0.1:1/"' in page
    assert "Initial commit" in alice.read(f"{HOME}/commit/{tip}")
    assert '<span class="k">def</span>' in alice.read(f"{HOME}/blob/main/src/train.py")
    image = alice.http.get(f"{HOME}/raw/main/docs/plot.png")
    assert (image.headers["content-type"], image.content) == ("image/png", FILES["docs/plot.png"])


def test_a_branch_with_a_slash_and_places_that_do_not_exist(site: Site) -> None:
    tip = site.forge.git.resolve(site.repo, "main") or ""
    pushes.move(site.forge, site.repo, site.actor("alice"), "refs/heads/a/b", tip, ZERO)
    alice = site.visitor("alice")
    assert "train.py" in alice.read(f"{HOME}/tree/a/b/src")
    assert "Flights" in alice.read(f"{HOME}/blob/a/b/README.md")
    assert alice.http.get(f"{HOME}/blob/main/src").headers["location"] == f"{HOME}/tree/main/src"
    for path in (
        "/blob/main/nope", "/blob/none/x", "/tree/main/%2e%2e/%2e%2e", "/commit/zzzz", "/commit/--help", "/pull/9",
        "/pull/x", "/issues/99999999999999999999", "/actions/runs/7", "/blob/main/%00",
    ):  # fmt: skip
        assert alice.http.get(HOME + path).status_code == 404, path


def test_a_repository_without_a_commit_has_pages_too(site: Site) -> None:
    owner = site.forge.store.user("acme")
    assert owner is not None
    repositories.create(site.forge, owner, "empty")
    alice = site.visitor("alice")
    assert "Nothing has been pushed yet." in alice.read("/acme/empty")
    for path in ("/pulls", "/issues", "/actions"):
        alice.read(f"/acme/empty{path}")
    assert alice.http.get("/acme/empty/tree/main").status_code == 404


def test_an_issue_is_opened_discussed_and_closed(site: Site) -> None:
    alice = site.visitor("alice")
    answer = alice.send(f"{HOME}/issues", f"{HOME}/issues/new", title=" ", body="kept")
    assert answer.status_code == 422
    assert "kept</textarea>" in answer.text
    answer = alice.send(f"{HOME}/issues", f"{HOME}/issues/new", title="Drift", body="`temp` moved")
    assert answer.headers["location"] == f"{HOME}/issues/1"
    page = f"{HOME}/issues/1"
    assert alice.send(page, f"{page}/comment", body="seen").status_code == 303
    assert site.visitor("dave").send(page, f"{page}/state", state="closed").status_code == 403
    assert alice.send(page, f"{page}/state", state="closed").status_code == 303
    assert "Drift" not in alice.read(f"{HOME}/issues")
    assert "Drift" in alice.read(f"{HOME}/issues?state=closed")
    assert "<code>temp</code> moved" in alice.read(page)


def test_a_pull_request_is_opened_for_a_branch(site: Site) -> None:
    alice = site.visitor("alice")
    sha = site.forge.git.refs(site.repo, "refs/heads")["refs/heads/main"]
    body = {"ref": "refs/heads/try-it", "sha": sha}
    headers = {"Authorization": "Bearer alice-token"}
    api = f"{site.forge.api}/repos{HOME}"
    assert httpx.post(f"{api}/git/refs", json=body, headers=headers).status_code == 201
    file = {"message": "Try it", "content": "YQ==", "branch": "try-it"}
    assert httpx.put(f"{api}/contents/try.txt", json=file, headers=headers).status_code == 201
    listed = f"{HOME}/pulls"
    assert "<option>try-it</option>" in alice.read(listed)
    refused = alice.send(listed, f"{listed}/new", head="nowhere", title="Kept", body="")
    assert refused.status_code == 422
    assert 'value="Kept"' in refused.text
    answer = alice.send(listed, f"{listed}/new", head="try-it", title="Try <b>it</b>", body="Why not?")
    assert answer.status_code == 303
    assert "Try &lt;b&gt;it&lt;/b&gt;" in alice.read(answer.headers["location"])
    assert "<option>try-it</option>" not in alice.read(listed), "one is open for it already"


# --------------------------------------------------------------- runs


def test_a_workflow_is_started_by_hand_with_its_inputs(site: Site) -> None:
    alice = site.visitor("alice")
    html = alice.read(f"{HOME}/actions")
    assert 'name="input.reason"' in html
    assert "<option selected>production</option>" in html
    flow = next(f for f in runs.workflows(site.forge, site.repo) if f.name == "Rollback")
    action = f"{HOME}/actions/workflows/{flow.id}/dispatch"
    fields = {"ref": "main", "input.stage": "staging", "input.dry": "true"}
    refused = alice.send(f"{HOME}/actions", action, **fields, **{"input.reason": ""})
    assert refused.status_code == 422
    assert "Required input &#39;reason&#39; not provided." in refused.text
    answer = alice.send(f"{HOME}/actions", action, **fields, **{"input.reason": "slow"})
    assert answer.status_code == 303
    event = site.forge.store.find(Event, "event = 'workflow_dispatch'")[0]
    assert event.payload["inputs"] == {"stage": "staging", "reason": "slow", "dry": "true"}
    assert "Waiting for the runner." in alice.read(answer.headers["location"])
    dave = site.visitor("dave")
    assert "Run workflow" not in dave.read(f"{HOME}/actions")
    assert dave.send(f"{HOME}/actions", action, **fields, **{"input.reason": "x"}).status_code == 403


def test_a_run_shows_its_jobs_steps_summary_and_log(site: Site) -> None:
    run = site.run()
    runs.update_run(site.forge, run, "in_progress")
    job = runs.create_job(site.forge, run, "train", ["ubuntu-latest"])
    alice, page = site.visitor("alice"), f"{HOME}/actions/runs/{run.id}"
    assert 'data-refresh="2"' in alice.read(page)
    log = (
        "##[group]Run Check out\n##[endgroup]\ncloned\n##[group]Run Train\n##[endgroup]\n"
        "\x1b[1;32mepoch 1\x1b[0m\rfit  9%\rfit 100%\n::group::Versions\nnumpy 2\n::endgroup::\n##[error]no signature\n"
    )
    runs.append_log(site.forge, run, log, job)
    at = stamp()
    steps = [
        {"name": name, "number": n, "status": "completed", "conclusion": end, "started_at": at, "completed_at": at}
        for n, (name, end) in enumerate((("Check out", "success"), ("Train", "failure"), ("Report", "skipped")), 1)
    ]
    runs.update_job(site.forge, job, "completed", "failure", steps)
    check = site.forge.store.get(CheckRun, job.check_run_id)
    output = {"title": "no signature", "summary": "| a |\n|---|\n| 1 |", "text": "- **error** train.py:3: no signature"}
    site.forge.store.update(check, output=output)
    runs.update_run(site.forge, run, "completed", "failure")
    html = alice.read(page)
    assert "data-refresh" not in html
    parts = re.findall(r'<details class="step" [^>]*?( open)?>\s*<summary>(.*?)</summary>', html, re.S)
    assert [(bool(is_open), text_of(head).split()[2]) for is_open, head in parts] == [
        (False, "Check"), (True, "Train"), (False, "Report"),
    ]  # fmt: skip
    assert "fit 100%" in html
    assert "fit  9%" not in html
    assert "\x1b" not in html
    assert re.search(r'<details class="group"><summary>Versions</summary><div><span class="l ">numpy 2', html)
    assert '<span class="l bad">no signature' in html
    assert "<td>1</td>" in html
    assert "train.py:3: no signature" in text_of(html)
    assert alice.http.get(f"{page}/job/{job.id}").headers["location"] == f"{page}#job-{job.id}"
    assert alice.http.get(f"{page}/log").text == log
