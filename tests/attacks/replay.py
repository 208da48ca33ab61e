"""Plays a story's history in a town, step by step: each step is what somebody does with their own rights."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import yaml

from mlp_ci.sandbox.forge.records import Collaborator, OrgMember, Team, TeamMember
from mlp_ci.spec.quantities import parse_duration
from tests.attacks.registry import evidence_of
from tests.attacks.town import BOT, No, identity

if TYPE_CHECKING:
    from tests.attacks.town import Town

Step = dict[str, Any]
MINUTE = timedelta(minutes=1)
STATUS = "mlp-ci/approvals"


@dataclass
class Pull:
    """A pull request by the name it has in the story."""

    number: int
    branch: str
    home: str = ""  # the owner of the fork that its branch is in
    open: bool = True
    heads: list[str] = field(default_factory=list)
    reviews: dict[str, int] = field(default_factory=dict)  # who → their last review


@dataclass
class Replay:
    """What has happened so far. ``watch`` is called when a workflow would judge a pull request anew."""

    town: Town
    watch: Callable[[Pull], None]
    pulls: dict[str, Pull] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)  # the id of a step → the commit that it put on main
    comments: dict[str, int] = field(default_factory=dict)
    deployed: Callable[[], None] | None = None  # waits for the deployments that the real workflows make
    stale: set[str] = field(default_factory=set)  # pull requests that changed since they were judged

    def play(self, history: tuple[Step, ...]) -> None:
        self.marks["beginning"] = self.town.main()
        for step in history:
            self.town.clock.move(MINUTE)
            does = step["does"]
            act = getattr(self, "do_" + does.replace(" ", "_").replace("-", "_"), None)
            assert act is not None, f"nobody can {does!r}"
            if not step.get("refused"):
                act(step)
                continue
            try:
                act(step)
            except No:
                continue
            msg = f"GitHub should have refused: {step}"
            raise AssertionError(msg)
        self.judge()

    def judge(self) -> None:
        """The workflow looks at every pull request in which something happened."""
        for name in sorted(self.stale):
            if self.pulls[name].open:
                self.watch(self.pulls[name])
        self.stale.clear()

    def settle(self) -> None:
        """Everything that was started so far comes to its end."""
        self.judge()
        if self.deployed is not None:
            self.deployed()

    def pull(self, step: Step) -> Pull:
        return self.pulls[step.get("pull", "it")]

    def _touched(self, step: Step) -> None:
        self.stale.add(step.get("pull", "it"))

    # ------------------------------------------------------------ commits

    def files(self, step: Step, branch: str | None) -> dict[str, Any]:
        """What a step's commit changes: ``version`` is short for the entry in promotion.yaml."""
        files = dict(step.get("files", {}))
        self.town.odd_workflows |= any(path.startswith(".github/workflows/") for path in files)
        for path, restored in step.get("restores", {}).items():  # path → the id of the step after which it was so
            raw = self.town.read(path, self.marks[restored])
            files[path] = raw.decode() if raw is not None else None
        if "version" in step or "lifts" in step or "quarantines" in step:
            files["promotion.yaml"] = self._promotion(step, branch)
        return files

    def _promotion(self, step: Step, branch: str | None) -> str:
        town = self.town
        now = town.promotion((branch and town.head(branch)) or town.main())
        stages, held = dict(now.get("stages") or {}), list(now.get("quarantine") or [])
        if "version" in step:
            stages[step.get("stage", "production")] = town.entry(step["version"], **self._more(step))
        lifted = {town.versions[n].digest for n in step.get("lifts", [])}
        held = [q for q in held if q["digest"] not in lifted] + [town.held(n) for n in step.get("quarantines", [])]
        return town.render(stages, held)

    def _more(self, step: Step) -> dict[str, Any]:
        return {key: self.town.filled(str(step[key])) for key in ("digest", "evidence", "emergency") if key in step}

    def _commit(self, step: Step, branch: str, *, base: str = "") -> str:
        """A commit on top of a branch (made from main when it is new), pushed by whoever makes the step."""
        town, by = self.town, step.get("pushed_by", step["by"])
        tip = town.head(branch)
        parent = (self.marks[step["from"]] if "from" in step else base) or tip or town.main()
        message = step.get("says", "Change")
        trailers = "\n".join(
            f"{step.get('trailer', 'Co-authored-by')}: {who['name']} <{who['email']}>"
            for who in map(identity, step.get("co_authors", []))
        )
        message += f"\n\n{trailers}" if trailers else ""
        people = {role: step[role] for role in ("author", "committer") if role in step}
        parents = [parent, *(self._rev(rev) for rev in step.get("with", []))]
        sha = town.commit(by, self.files(step, branch), parents, message, people)
        town.point(by, branch, sha, force=step.get("force", False))
        return sha

    def _rev(self, rev: str) -> str:
        head = self.marks.get(rev) or self.town.head(self.pulls[rev].branch if rev in self.pulls else rev)
        assert head, rev
        return head

    def do_open(self, step: Step) -> None:
        """A branch with one commit and a pull request from it."""
        name = step.get("pull", "it")
        branch = step.get("branch", f"topic-{name}")
        if "at" in step:  # a commit that is there already
            sha = self._rev(step["at"])
            self.town.point(step["by"], branch, sha)
        else:
            sha = self._commit({"says": "Promote", **step}, branch)
        body = {"title": step.get("says", "Promote"), "head": branch, "base": step.get("base", "main"), "body": ""}
        made = self.town.api(step["by"], "POST", "/pulls", {**body, "draft": step.get("draft", False)})
        self.pulls[name] = Pull(made["number"], branch, heads=[sha])
        self.stale.add(name)

    def do_open_from_fork(self, step: Step) -> None:
        """A pull request from a fork of one's own."""
        town, by = self.town, step["by"]
        town.api(by, "POST", "/forks", {})
        home = f"/repos/{by}/{town.model}"
        sha = ""
        for path, text in self.files(step, None).items():
            now = town.api(by, "GET", f"{home}/contents/{path}")
            content = base64.b64encode(town.filled(text).encode()).decode()
            body = {"message": "Change", "content": content, "sha": now["sha"]}
            sha = town.api(by, "PUT", f"{home}/contents/{path}", body)["commit"]["sha"]
        made = town.api(by, "POST", "/pulls", {"title": "Promote", "head": f"{by}:main", "base": "main"})
        self.pulls["it"] = Pull(made["number"], "main", home=by, heads=[sha])
        self.stale.add("it")

    def do_push(self, step: Step) -> None:
        """A commit on a pull request's branch, or with ``branch`` on any (``main``: directly)."""
        if "branch" in step:
            self.settle()
            sha = self._commit(step, step["branch"])
            self.marks[step.get("id", step["branch"])] = sha
            return
        pull = self.pull(step)
        pull.heads.append(self._commit(step, pull.branch))
        self._touched(step)

    def do_promote(self, step: Step) -> None:
        """The honest way, in one step: asked for, approved by somebody else, merged."""
        name = step.get("id", f"promotion-{len(self.pulls)}")
        asked = {**step, "pull": name}
        self.do_open(asked)
        for who in step.get("approved_by", ["bob"]):
            self.do_approve({"by": who, "pull": name})
        self.do_merge({"by": step["by"], "pull": name, "id": name})

    # ------------------------------------------------------------ reviews

    def do_approve(self, step: Step) -> None:
        self._review(step, "APPROVE")

    def do_ask_for_changes(self, step: Step) -> None:
        self._review(step, "REQUEST_CHANGES")

    def do_remark(self, step: Step) -> None:
        """A review that says nothing for or against."""
        self._review(step, "COMMENT")

    def _review(self, step: Step, verdict: str) -> None:
        pull = self.pull(step)
        body: Step = {"event": verdict, "body": step.get("says", "I looked at it")}
        if "head" in step:  # the head before the last push is -2
            body["commit_id"] = pull.heads[step["head"]]
        made = self.town.api(step["by"], "POST", f"/pulls/{pull.number}/reviews", body)
        pull.reviews[step["by"]] = made["id"]
        self._touched(step)

    def do_dismiss(self, step: Step) -> None:
        pull = self.pull(step)
        path = f"/pulls/{pull.number}/reviews/{pull.reviews[step['whose']]}/dismissals"
        self.town.api(step["by"], "PUT", path, {"message": step.get("says", "settled"), "event": "DISMISS"})
        self._touched(step)

    # ------------------------------------------------------------ the pull request

    def do_merge(self, step: Step) -> None:
        """Merge by GitHub's button. What the workflow says is known by then."""
        self.judge()
        pull = self.pull(step)
        body = {"merge_method": step.get("method", "merge")}
        made = self.town.api(step["by"], "PUT", f"/pulls/{pull.number}/merge", body)
        pull.open = False
        self.marks[step.get("id", step.get("pull", "it"))] = made["sha"]

    def do_close(self, step: Step) -> None:
        self._edit(step, state="closed")

    def do_reopen(self, step: Step) -> None:
        self._edit(step, state="open")

    def do_change_base(self, step: Step) -> None:
        self._edit(step, base=step["to"])

    def _edit(self, step: Step, **values: str) -> None:
        pull = self.pull(step)
        self.town.api(step["by"], "PATCH", f"/pulls/{pull.number}", values)
        self._touched(step)

    def do_comment(self, step: Step) -> None:
        made = self.town.api(step["by"], "POST", f"/issues/{self.pull(step).number}/comments", {"body": step["says"]})
        self.comments[step["by"]] = made["id"]

    def do_edit_comment(self, step: Step) -> None:
        """Change somebody's comment; ``whose: mlp-ci`` is the one with the verdict."""
        self.judge()
        whose = step["whose"]
        listed = self.town.api("carol", "GET", f"/issues/{self.pull(step).number}/comments")
        mine = next((c["id"] for c in listed if "<!-- mlp-ci approvals -->" in c["body"]), None)
        number = mine if whose == "mlp-ci" else self.comments[whose]
        assert number is not None
        self.town.api(step["by"], "PATCH", f"/issues/comments/{number}", {"body": step["says"]})

    def do_set_status(self, step: Step) -> None:
        self.judge()
        head = self.town.head(self.pull(step).branch)
        body = {"state": step.get("state", "success"), "context": STATUS, "description": "approved by alice"}
        self.town.api(step["by"], "POST", f"/statuses/{head}", body)

    def do_make_check_run(self, step: Step) -> None:
        """Check runs are made by apps and by workflows; a workflow of one's own on a branch is enough."""
        self.judge()
        head = self.town.head(self.pull(step).branch)
        body = {"name": STATUS, "head_sha": head, "status": "completed", "conclusion": "success"}
        self.town.api(BOT, "POST", "/check-runs", body)

    # ------------------------------------------------------------ around the pull request

    def do_revert(self, step: Step) -> None:
        """A pull request that undoes what came to main with ``of``; with ``branch: main`` a push that does."""
        parent = self.town.forge.git.commit(self.town.repo, self.marks[step["of"]]).parents[0]
        raw = self.town.read("promotion.yaml", parent)
        files = {"promotion.yaml": raw.decode() if raw else None}
        self._one_way({"says": f"Revert {step['of']}", **step, "files": files})

    def _one_way(self, step: Step) -> None:
        if "branch" in step:
            self.do_push(step)
        else:
            self.do_open(step)

    def do_merge_by_hand(self, step: Step) -> None:
        """A merge commit made at one's desk, of main and another branch, pushed to main."""
        self.settle()
        other = self._rev(step["of"])
        head = self.town.main()
        sha = self.town.commit(step["by"], self.files(step, None), [head, other], step.get("says", "Merge"), {})
        self.town.point(step["by"], "main", sha)
        self.marks[step.get("id", "by hand")] = sha

    def do_leave_team(self, step: Step) -> None:
        """An owner takes somebody out of a team."""
        self.judge()
        store = self.town.forge.store
        team = store.first(Team, "org_id = ? AND slug = ?", self.town.repo.owner_id, step["team"])
        user = store.user(step["who"])
        assert team
        assert user
        store.delete(TeamMember, "team_id = ? AND user_id = ?", team.id, user.id)

    def do_give_right(self, step: Step) -> None:
        """An owner lets somebody write to the repository."""
        user = self.town.forge.store.user(step["who"])
        assert user
        self.town.forge.store.insert(
            Collaborator, repo_id=self.town.repo.id, user_id=user.id, permission=step.get("right", "write")
        )

    def do_wait(self, step: Step) -> None:
        self.settle()
        self.town.clock.move(parse_duration(step["for"]))

    def do_change_policy(self, step: Step) -> None:
        """A change of platform.yaml on the default branch of the organisation's .github repository."""
        self.judge()
        path = f"/repos/{self.town.org}/.github"
        now = self.town.api("carol", "GET", f"{path}/contents/platform.yaml")
        values = {**yaml.safe_load(base64.b64decode(now["content"])), **step["to"]}
        content = base64.b64encode(yaml.safe_dump(values).encode()).decode()
        body = {"message": "Change the policy", "content": content, "sha": now["sha"]}
        self.town.api(step["by"], "PUT", f"{path}/contents/platform.yaml", body)

    def do_hide_policy(self, step: Step) -> None:
        """The repository .github is taken from those who could read it, the app among them."""
        self.judge()
        store = self.town.forge.store
        repo = store.repo(self.town.org, ".github")
        bot = store.user(BOT)
        assert repo
        assert bot
        store.update(repo, private=True)
        store.delete(OrgMember, "org_id = ? AND user_id = ?", repo.owner_id, bot.id)
        self.do_give_right({"who": BOT})

    # ------------------------------------------------------------ the registry

    def do_swap_digest(self, step: Step) -> None:
        """Other bytes under a version's number, with the tag made to fit."""
        self.judge()
        registry, version = self.town.registry, self.town.versions[step["version"]]
        digest = registry.put_artefact(version.run, step["bytes"])
        registry.tracking.set_version_tags(self.town.model, version.number, {"mlp.digest": digest})

    def do_swap_artefact(self, step: Step) -> None:
        """Other bytes under a version's number, with the tag left alone."""
        self.judge()
        self.town.registry.put_artefact(self.town.versions[step["version"]].run, step["bytes"])

    def do_swap_evidence(self, step: Step) -> None:
        """Better figures in a version's evidence; ``tag``: its digest in the registry is made to fit as well."""
        self.judge()
        registry, version = self.town.registry, self.town.versions[step["version"]]
        digest = registry.put_evidence(version.run, evidence_of(0.99))
        if step.get("tag"):
            registry.tracking.set_version_tags(self.town.model, version.number, {"mlp.evidence": digest})

    def do_tag_version(self, step: Step) -> None:
        self.judge()
        tags = {key: self.town.filled(str(value)) for key, value in step["tags"].items()}
        self.town.registry.tracking.set_version_tags(self.town.model, step["version"], tags)

    def do_register_again(self, step: Step) -> None:
        """Delete the model with its versions and register others: MLflow counts from 1 again."""
        self.judge()
        registry = self.town.registry
        registry.forget(self.town.model)
        registry.register(self.town.model, self.town.main(), step["registered"])

    def do_register(self, step: Step) -> None:
        commit = self._rev(step["commit"]) if "commit" in step else self.town.main()
        number, letter = step["version"], step["bytes"]
        self.town.versions[number] = self.town.registry.add(self.town.model, commit, number, letter)

    # ------------------------------------------------------------ serving

    def do_roll_back(self, step: Step) -> None:
        """What `mlp-ci rollback` writes down: the earlier version back, the bytes under quarantine."""
        town = self.town
        now = town.promotion()
        bad = next(n for n, v in town.versions.items() if v.digest == now["stages"]["production"]["digest"])
        files = {"by": BOT, "branch": "main", "version": step["to"], "quarantines": [bad], "says": "Roll back"}
        self.do_push({**files, "id": step.get("id", "rollback")})

    def do_deploy(self, step: Step) -> None:
        """What `mlp-ci deploy` leaves on GitHub of a stage; the real workflow does it by itself."""
        self.settle()
        if self.deployed is not None:
            return
        stage = step["stage"]
        entry = self.town.promotion()["stages"][stage]
        payload = {"version": entry["version"], "digest": entry["digest"]}
        self.town.hub().record_deployment(self.town.main(), stage, "http://127.0.0.1:9", payload)

    def do_forge_deployment(self, step: Step) -> None:
        """A record of a deployment that never was; whoever may write can make one."""
        self.judge()
        entry = self.town.entry(step["version"])
        body = {"ref": "main", "environment": step["stage"], "payload": entry, "auto_merge": False}
        made = self.town.api(step["by"], "POST", "/deployments", {**body, "required_contexts": []})
        self.town.api(step["by"], "POST", f"/deployments/{made['id']}/statuses", {"state": "success"})
