"""The forge's pages, as a person meets them: log in, review, approve, merge; in a real browser, too."""

from __future__ import annotations

import json
import re
import stat
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx
import pytest

from mlp_ci import clock
from mlp_ci.sandbox.forge import checks, protection, pushes, repositories, reviews, runs
from mlp_ci.sandbox.forge.pages import login_code
from mlp_ci.sandbox.forge.pages.session import Sealer, new_session
from mlp_ci.sandbox.forge.records import CheckRun, Comment, Issue, Pull, Review, Token
from mlp_ci.sandbox.forge.store import stamp
from tests.forge import browser
from tests.forge.page_site import HOME, Site, open_site, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path / "forge") as opened:
        yield opened


# --------------------------------------------------------------- who looks


def test_without_a_login_every_page_leads_to_the_login_and_back(site: Site) -> None:
    visitor = site.visitor()
    answer = visitor.http.get(f"{HOME}/pulls?state=all")
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        "/login?next=%2Facme%2Fflight-delay%2Fpulls%3Fstate%3Dall",
    )
    answer = visitor.send(answer.headers["location"], "/login", token="alice-token")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{HOME}/pulls?state=all")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "alice" in visitor.read("/")
    assert visitor.send("/", "/logout").headers["location"] == "/login"
    assert visitor.http.get("/").status_code == 303


@pytest.mark.parametrize("token", ["", "wrong", "app-token"])
def test_only_a_persons_token_logs_in(site: Site, token: str) -> None:
    answer = site.visitor().send("/login", "/login", token=token)
    assert answer.status_code == 403
    assert "The forge knows no person with this token." in answer.text


def test_a_session_ends_with_the_token_that_opened_it(site: Site) -> None:
    visitor = site.visitor()
    visitor.send("/login", "/login", token="alice-token")
    assert visitor.http.get("/").status_code == 200
    site.forge.store.delete(Token, "user_id = ?", site.actor("alice").user.id)
    assert visitor.http.get("/").status_code == 303


def test_a_login_code_works_once_for_ten_minutes_and_is_kept_private(site: Site) -> None:
    code = login_code(site.forge.root, "alice")
    files = list((site.forge.root / "login-codes").iterdir())
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600]
    assert code not in files[0].name + files[0].read_text()
    answer = site.visitor().http.get(f"/login/{code}?next={HOME}")
    assert (answer.status_code, answer.headers["location"]) == (303, HOME)
    assert site.visitor().http.get(f"/login/{code}").status_code == 403
    assert list((site.forge.root / "login-codes").iterdir()) == []

    late = login_code(site.forge.root, "alice")
    file = next((site.forge.root / "login-codes").iterdir())
    file.write_text(json.dumps({**json.loads(file.read_text()), "expires": time.time() - 1}))
    assert site.visitor().http.get(f"/login/{late}").status_code == 403
    login_code(site.forge.root, "bob")
    file = next((site.forge.root / "login-codes").iterdir())
    assert 590 < json.loads(file.read_text())["expires"] - time.time() <= 600
    assert site.visitor().http.get(f"/login/{login_code(site.forge.root, 'nobody')}").status_code == 403


@pytest.mark.parametrize(
    "target", ["//evil.test/", "https://evil.test/", "/\\evil.test", "javascript:alert(1)", "/\tx"]
)
def test_a_login_never_leads_away_from_the_forge(site: Site, target: str) -> None:
    code = login_code(site.forge.root, "alice")
    assert site.visitor().http.get(f"/login/{code}", params={"next": target}).headers["location"] == "/"


def test_a_cookie_signed_with_another_key_is_nobodys(site: Site, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    forged = Sealer(tmp_path / "other").seal(new_session(site.actor("alice").user.id))
    port = httpx.URL(site.server.url).port
    for value in (forged, forged + "x", "", "a.b", "{}." + forged.partition(".")[2]):
        answer = httpx.get(site.server.url, cookies={f"forge_session_{port}": value})
        assert answer.status_code == 303
    assert stat.S_IMODE((site.forge.root / "pages.key").stat().st_mode) == 0o600


def test_a_form_without_this_sessions_token_or_from_another_place_does_nothing(site: Site) -> None:
    site.pull()
    bob, other = site.visitor("bob"), site.visitor("alice")
    token = re.search(r'name="form_token" value="(\w+)"', other.read(HOME))
    assert token is not None
    own = re.search(r'name="form_token" value="(\w+)"', bob.read(HOME))
    assert own is not None
    for data, headers in (
        ({}, {}),
        ({"form_token": token[1]}, {}),
        ({"form_token": own[1]}, {"Origin": "http://evil.test"}),
        ({"form_token": own[1]}, {"Origin": "null"}),
    ):
        fields = {"event": "COMMENT", "body": "hi", **data}
        answer = bob.http.post(f"{HOME}/pull/1/review", data=fields, headers=headers)
        assert answer.status_code == 403, (data, headers)
    assert site.forge.store.count(Comment) == 0
    assert bob.send(f"{HOME}/pull/1", f"{HOME}/pull/1/review", event="COMMENT", body="hi").status_code == 303


def test_a_private_repository_does_not_exist_for_a_stranger(site: Site) -> None:
    site.pull()
    eve = site.visitor("eve")
    for path in ("", "/pulls", "/pull/1", "/issues", "/actions", "/blob/main/README.md", "/raw/main/README.md"):
        assert eve.http.get(HOME + path).status_code == 404, path
    assert "flight-delay" not in eve.read("/")
    own = re.search(r'name="form_token" value="(\w+)"', eve.read("/"))
    assert own is not None
    answer = eve.http.post(f"{HOME}/pull/1/merge", data={"form_token": own[1]})
    assert answer.status_code == 404


# --------------------------------------------------------------- pull requests


def test_a_reviewer_approves_and_merges(site: Site) -> None:
    pull = site.pull()
    protection.protect(site.forge, site.repo, "main", approvals=1, required_checks=["ci"])
    bob = site.visitor("bob")
    page = f"{HOME}/pull/1"

    refused = bob.send(page, f"{page}/merge", method="merge")
    assert refused.status_code == 422
    assert "At least 1 approving review is required" in refused.text
    assert 'Required status check "ci" is expected.' in text_of(refused.text)

    answer = bob.send(page, f"{page}/review", event="APPROVE", body="**good**")
    assert answer.status_code == 303
    review = site.forge.store.find(Review)[0]
    assert (review.state, review.body, review.commit_id) == ("APPROVED", "**good**", pull.head_sha)
    assert "<strong>good</strong>" in bob.read(page)

    checks.set_status(site.forge, site.repo, pull.head_sha, site.actor("bob").user, context="ci", state="success",
                      description="fine", target_url="javascript:alert(1)")  # fmt: skip
    assert "javascript:" not in bob.read(page)
    assert bob.send(page, f"{page}/merge", method="squash").status_code == 303
    merged = site.forge.store.get(Pull, pull.id)
    assert merged.merged
    assert merged.merged_by == site.actor("bob").user.id
    assert b"production: 2" in site.visitor("dave").http.get(f"{HOME}/raw/main/promotion.yaml").content
    assert "bob merged topic into main" in text_of(bob.read(page))


def test_an_author_cannot_approve_and_keeps_the_words(site: Site) -> None:
    site.pull()
    page = f"{HOME}/pull/1"
    answer = site.visitor("alice").send(page, f"{page}/review", event="APPROVE", body="I <like> it")
    assert answer.status_code == 422
    assert "Can not approve your own pull request." in answer.text
    assert "I &lt;like&gt; it</textarea>" in answer.text
    assert site.forge.store.count(Review) == 0


def test_nobody_approves_or_merges_commits_they_have_not_seen(site: Site) -> None:
    pull = site.pull()
    bob, page = site.visitor("bob"), f"{HOME}/pull/1"
    new = repositories.commit_files(site.forge, site.repo, site.actor("alice"), {"x": b"1"}, "More", "topic")
    old = pull.head_sha
    assert old != new
    answer = bob.send(page, f"{page}/review", event="APPROVE", head=old)
    assert answer.status_code == 422
    assert "New commits have come" in answer.text
    answer = bob.send(page, f"{page}/merge", head=old)
    assert answer.status_code == 422
    assert "Head branch was modified" in answer.text
    assert not site.forge.store.get(Pull, pull.id).merged


def test_commits_stand_where_they_were_pushed_whatever_date_they_claim(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLP_CLOCK_FILE", str(tmp_path / "clock"))
    clock.set_instant(tmp_path / "clock", datetime(2013, 4, 1, tzinfo=UTC))
    site.pull()
    git, repo, alice = site.forge.git, site.repo, site.actor("alice")
    tip = git.resolve(repo, "topic") or ""
    bob = site.visitor("bob")
    bob.send(f"{HOME}/pull/1", f"{HOME}/pull/1/review", event="COMMENT", body="first words")
    clock.set_instant(tmp_path / "clock", datetime(2013, 4, 2, tzinfo=UTC))
    # A time zone of 99 hours: git stores it, no calendar knows it.
    person = f"Alice <alice@acme.test> {int(time.time())} +9900"
    lines = [
        f"tree {git.commit(repo, tip).tree}", f"parent {tip}", f"author {person}", f"committer {person}", "", "Odd",
    ]  # fmt: skip
    done = git.run(repo, "hash-object", "-t", "commit", "-w", "--stdin", stdin="\n".join(lines).encode())
    pushes.move(site.forge, repo, alice, "refs/heads/topic", done.stdout.decode().strip(), tip)
    text = text_of(bob.read(f"{HOME}/pull/1"))
    assert text.index("Promote Alice") < text.index("first words") < text.index("Odd Alice, just now")
    assert "Odd" in bob.read(f"{HOME}/commit/{done.stdout.decode().strip()}")


def test_a_reader_comments_and_neither_merges_nor_closes(site: Site) -> None:
    pull = site.pull()
    dave, page = site.visitor("dave"), f"{HOME}/pull/1"
    html = dave.read(page)
    assert "merge-button" not in html
    assert "Close without merging" not in html
    assert dave.send(page, f"{page}/review", event="COMMENT", body="hm").status_code == 303
    answer = dave.send(page, f"{page}/merge", method="merge")
    assert answer.status_code == 403
    assert "This needs write access to acme/flight-delay; dave has read access." in answer.text
    assert dave.send(page, f"{page}/state", state="closed").status_code == 403
    assert site.forge.store.get(Issue, pull.id).state == "open"

    alice = site.visitor("alice")
    assert alice.send(page, f"{page}/state", state="closed").status_code == 303
    assert "closed" in text_of(alice.read(page))
    assert "Promote version 2" in alice.read(f"{HOME}/pulls?state=closed")
    assert alice.send(page, f"{page}/state", state="open").status_code == 303
    assert site.forge.store.get(Issue, pull.id).state == "open"


def test_the_files_of_a_pull_request_have_numbered_lines(site: Site) -> None:
    site.pull()
    html = site.visitor("bob").read(f"{HOME}/pull/1/files")
    rows = re.findall(r'<tr class="(\w+)">(.*?)</tr>', html, re.S)
    assert [(kind, text_of(cells)) for kind, cells in rows] == [
        ("hunk", "@@ -1 +1 @@"), ("del", "1 − production: 1"), ("add", "1 + production: 2"),
    ]  # fmt: skip


# --------------------------------------------------------------- a real browser


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[browser.Browser]:
    reason = browser.missing()
    if reason:
        pytest.skip(reason)
    with browser.Browser(tmp_path / "profile") as driven:
        yield driven


def test_a_person_approves_and_merges_in_a_browser(site: Site, chromium: browser.Browser) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    pull = site.pull(title=f"Promote {evil}", body=evil)
    protection.protect(site.forge, site.repo, "main", approvals=1)
    page = f"{HOME}/pull/{pull.number}"
    chromium.open(f"{site.server.url}/login/{login_code(site.forge.root, 'bob')}?next={page}")
    assert chromium.url() == site.server.url + page
    assert "owned" not in chromium.script("return document.title").replace(evil, "")
    assert evil in chromium.text("h1")

    chromium.click("#merge-button")
    chromium.wait_for("At least 1 approving review is required", "[role=alert]")
    assert chromium.url() == site.server.url + page
    chromium.type("#body", "Looks **right**")
    chromium.click("#approve-button")
    chromium.wait_for("bob", "#timeline")
    chromium.wait_for("Looks right", "#timeline")
    chromium.click("#merge-button")
    chromium.wait_for("merged", "#pull-state")
    assert site.forge.store.get(Pull, pull.id).merged
    assert site.forge.store.find(Review)[0].body == "Looks **right**"


def test_a_running_run_fills_itself_in(site: Site, chromium: browser.Browser) -> None:
    run = site.run()
    runs.update_run(site.forge, run, "in_progress")
    job = runs.create_job(site.forge, run, "train")
    check = site.forge.store.get(CheckRun, job.check_run_id)
    site.forge.store.update(check, output={"summary": "<details><summary>More</summary>\n\nhidden\n\n</details>"})
    runs.update_job(site.forge, job, "in_progress")
    chromium.open(f"{site.server.url}/login/{login_code(site.forge.root, 'alice')}?next={HOME}/actions/runs/{run.id}")
    assert "running" in chromium.text()
    chromium.click(".prose summary")
    runs.append_log(site.forge, run, "##[group]Run Train\n##[endgroup]\nepoch 7\n", job)
    step = {"name": "Train", "number": 1, "status": "completed", "conclusion": "failure"}
    runs.update_job(site.forge, job, "completed", "failure", [{**step, "started_at": stamp(), "completed_at": stamp()}])
    runs.update_run(site.forge, run, "completed", "failure")
    chromium.wait_for("epoch 7")
    assert "failed" in chromium.text("#run")
    assert "hidden" in chromium.text(".prose")  # what was unfolded stays so


def test_nothing_scrolls_sideways_on_a_phone(site: Site, chromium: browser.Browser) -> None:
    wide = "| " + " | ".join(f"column {n}" for n in range(12)) + " |\n|" + "---|" * 12 + "\n"
    site.pull(title="x" * 120, body=wide + "\n" + "y" * 300)
    reviews.submit(site.forge, site.actor("bob"), site.forge.store.find(Pull)[0], "APPROVE")
    chromium._post("window/rect", width=500, height=900)
    chromium.open(f"{site.server.url}/login/{login_code(site.forge.root, 'bob')}")
    for path in ("/", HOME, f"{HOME}/pull/1", f"{HOME}/pull/1/files", f"{HOME}/actions", f"{HOME}/issues"):
        chromium.open(site.server.url + path)
        excess = chromium.script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert excess <= 0, path
