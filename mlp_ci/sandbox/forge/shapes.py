"""How GitHub's REST API writes people, repositories, commits and files: values in, JSON out."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlp_ci.sandbox.forge import access
from mlp_ci.sandbox.forge.records import Activity, Issue, OrgMember, Protection, Record, Repo, Team, TeamRepo, User

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlp_ci.sandbox.forge.access import Forge
    from mlp_ci.sandbox.forge.objects import Change, Commit, Entry, Person

Shape = dict[str, Any]

_REPO_URLS = {
    "archive_url": "/{archive_format}{/ref}", "assignees_url": "/assignees{/user}", "blobs_url": "/git/blobs{/sha}",
    "branches_url": "/branches{/branch}", "collaborators_url": "/collaborators{/collaborator}",
    "comments_url": "/comments{/number}", "commits_url": "/commits{/sha}", "compare_url": "/compare/{base}...{head}",
    "contents_url": "/contents/{+path}", "contributors_url": "/contributors", "deployments_url": "/deployments",
    "downloads_url": "/downloads", "events_url": "/events", "forks_url": "/forks",
    "git_commits_url": "/git/commits{/sha}", "git_refs_url": "/git/refs{/sha}", "git_tags_url": "/git/tags{/sha}",
    "hooks_url": "/hooks", "issue_comment_url": "/issues/comments{/number}",
    "issue_events_url": "/issues/events{/number}",
    "issues_url": "/issues{/number}", "keys_url": "/keys{/key_id}", "labels_url": "/labels{/name}",
    "languages_url": "/languages", "merges_url": "/merges", "milestones_url": "/milestones{/number}",
    "notifications_url": "/notifications{?since,all,participating}", "pulls_url": "/pulls{/number}",
    "releases_url": "/releases{/id}", "stargazers_url": "/stargazers", "statuses_url": "/statuses/{sha}",
    "subscribers_url": "/subscribers", "subscription_url": "/subscription", "tags_url": "/tags", "teams_url": "/teams",
    "trees_url": "/git/trees{/sha}",
}  # fmt: skip
_USER_URLS = {
    "followers_url": "/followers", "following_url": "/following{/other_user}", "gists_url": "/gists{/gist_id}",
    "starred_url": "/starred{/owner}{/repo}", "subscriptions_url": "/subscriptions", "organizations_url": "/orgs",
    "repos_url": "/repos", "events_url": "/events{/privacy}", "received_events_url": "/received_events",
}  # fmt: skip


def node_id(record: Record) -> str:
    return base64.b64encode(f"{type(record).__name__}:{record.id}".encode()).decode()


def user(forge: Forge, who: User) -> Shape:
    url = f"{forge.api}/users/{quote(who.login)}"
    return {
        "login": who.login,
        "id": who.id,
        "node_id": node_id(who),
        "avatar_url": f"{forge.url}/avatars/{who.id}",
        "gravatar_id": "",
        "url": url,
        "html_url": f"{forge.url}/{quote(who.login)}",
        **{name: url + tail for name, tail in _USER_URLS.items()},
        "type": who.type,
        "site_admin": False,
    }


def user_by_id(forge: Forge, id: int | None) -> Shape | None:
    return None if id is None else user(forge, forge.store.get(User, id))


def full_user(forge: Forge, who: User) -> Shape:
    blank = dict.fromkeys(("company", "blog", "location", "hireable", "bio"))
    counts = dict.fromkeys(("public_gists", "followers", "following"), 0)
    repos = forge.store.count(Repo, "owner_id = ? AND private = 0", who.id)
    times = {"created_at": who.created_at, "updated_at": who.created_at}
    return {**user(forge, who), "name": who.name, "email": who.email, **blank, **counts, "public_repos": repos, **times}


def organization(forge: Forge, org: User) -> Shape:
    url = f"{forge.api}/orgs/{org.login}"
    return {
        "login": org.login,
        "id": org.id,
        "node_id": node_id(org),
        "url": url,
        "repos_url": f"{url}/repos",
        "events_url": f"{url}/events",
        "hooks_url": f"{url}/hooks",
        "issues_url": f"{url}/issues",
        "members_url": f"{url}/members{{/member}}",
        "public_members_url": f"{url}/public_members{{/member}}",
        "avatar_url": f"{forge.url}/avatars/{org.id}",
        "description": org.description or "",
    }


def full_organization(forge: Forge, org: User) -> Shape:
    return {
        **organization(forge, org),
        "name": org.name,
        "has_organization_projects": False,
        "has_repository_projects": False,
        "public_repos": forge.store.count(Repo, "owner_id = ? AND private = 0", org.id),
        "public_gists": 0,
        "followers": 0,
        "following": 0,
        "html_url": f"{forge.url}/{org.login}",
        "type": "Organization",
        "created_at": org.created_at,
        "updated_at": org.created_at,
        "archived_at": None,
        "default_repository_permission": "read",
        "members_count": forge.store.count(OrgMember, "org_id = ? AND role != 'app'", org.id),
    }


def team(forge: Forge, group: Team, permission: str = "pull") -> Shape:
    org = forge.store.get(User, group.org_id)
    url = f"{forge.api}/orgs/{org.login}/teams/{group.slug}"
    return {
        "id": group.id,
        "node_id": node_id(group),
        "name": group.name,
        "slug": group.slug,
        "description": group.description,
        "privacy": "closed",
        "notification_setting": "notifications_enabled",
        "permission": permission,
        "url": url,
        "html_url": f"{forge.url}/orgs/{org.login}/teams/{group.slug}",
        "members_url": f"{url}/members{{/member}}",
        "repositories_url": f"{url}/repos",
        "type": "organization",
        "organization_id": org.id,
        "parent": None,
    }


def full_team(forge: Forge, group: Team) -> Shape:
    return {
        **team(forge, group),
        "members_count": len(access.members_of(forge, group)),
        "repos_count": forge.store.count(TeamRepo, "team_id = ?", group.id),
        "created_at": group.created_at,
        "updated_at": group.created_at,
        "organization": full_organization(forge, forge.store.get(User, group.org_id)),
    }


def permissions(have: str) -> dict[str, bool]:
    names = {"admin": "admin", "maintain": "maintain", "push": "write", "triage": "triage", "pull": "read"}
    return {name: access.at_least(have, need) for name, need in names.items()}


def repo_url(forge: Forge, repo: Repo) -> str:
    return f"{forge.api}/repos/{repo.full_name}"


def html_url(forge: Forge, repo: Repo) -> str:
    return f"{forge.url}/{repo.full_name}"


def minimal_repository(forge: Forge, repo: Repo) -> Shape:
    url = repo_url(forge, repo)
    return {
        "id": repo.id,
        "node_id": node_id(repo),
        "name": repo.name,
        "full_name": repo.full_name,
        "private": repo.private,
        "owner": user(forge, forge.store.get(User, repo.owner_id)),
        "html_url": html_url(forge, repo),
        "description": repo.description,
        "fork": repo.fork_of is not None,
        "url": url,
        **{name: url + tail for name, tail in _REPO_URLS.items()},
    }


def repository(forge: Forge, repo: Repo, viewer: User | None = None) -> Shape:
    """A repository in full; ``viewer`` adds what they may do there."""
    html = html_url(forge, repo)
    open_issues = forge.store.count(Issue, "repo_id = ? AND state = 'open'", repo.id)
    shape = {
        **minimal_repository(forge, repo),
        "git_url": f"{html}.git",
        "ssh_url": f"{html}.git",
        "clone_url": f"{html}.git",
        "svn_url": html,
        **dict.fromkeys(("mirror_url", "homepage", "language", "license")),
        **dict.fromkeys(("forks_count", "stargazers_count", "watchers_count", "size", "forks", "watchers"), 0),
        **dict.fromkeys(("has_projects", "has_wiki", "has_pages", "has_discussions", "archived", "disabled"), False),
        "default_branch": repo.default_branch,
        "open_issues_count": open_issues,
        "open_issues": open_issues,
        "has_issues": True,
        "is_template": False,
        "topics": [],
        "visibility": "private" if repo.private else "public",
        "allow_forking": True,
        "web_commit_signoff_required": False,
        "pushed_at": repo.pushed_at,
        "created_at": repo.created_at,
        "updated_at": repo.updated_at,
    }
    if viewer is not None:
        shape["permissions"] = permissions(access.role(forge, viewer, repo))
    return shape


def full_repository(forge: Forge, repo: Repo, viewer: User) -> Shape:
    return {
        **repository(forge, repo, viewer),
        "subscribers_count": 0,
        "network_count": 0,
        "allow_merge_commit": True,
        "allow_squash_merge": True,
        "allow_rebase_merge": True,
        "allow_auto_merge": False,
        "delete_branch_on_merge": repo.delete_branch_on_merge,
    }


def activity(forge: Forge, repo: Repo, found: Activity) -> Shape:
    """A branch that moved, and who moved it."""
    return {
        "id": found.id,
        "node_id": node_id(found),
        "before": found.before,
        "after": found.after,
        "ref": found.ref,
        "timestamp": found.at,
        "activity_type": found.kind,
        "actor": user_by_id(forge, found.actor_id),
    }


# --- git objects


def person(who: Person) -> Shape:
    return {"name": who.name, "email": who.email, "date": who.date}


def git_commit(forge: Forge, repo: Repo, commit: Commit) -> Shape:
    url = repo_url(forge, repo)
    html = html_url(forge, repo)
    return {
        "sha": commit.sha,
        "node_id": commit.sha,
        "url": f"{url}/git/commits/{commit.sha}",
        "html_url": f"{html}/commit/{commit.sha}",
        "author": person(commit.author),
        "committer": person(commit.committer),
        "message": commit.message,
        "tree": {"sha": commit.tree, "url": f"{url}/git/trees/{commit.tree}"},
        "parents": [
            {"sha": p, "url": f"{url}/git/commits/{p}", "html_url": f"{html}/commit/{p}"} for p in commit.parents
        ],
        "verification": {
            "verified": False, "reason": "unsigned", "signature": None, "payload": None, "verified_at": None,
        },
    }  # fmt: skip


def commit(forge: Forge, repo: Repo, commit: Commit) -> Shape:
    """A commit with author and committer resolved to users by e-mail (None when nobody has it)."""
    url = repo_url(forge, repo)
    inner = git_commit(forge, repo, commit)
    author, committer = (access.by_email(forge, who.email) for who in (commit.author, commit.committer))
    return {
        "sha": commit.sha,
        "node_id": commit.sha,
        "commit": {
            **{key: inner[key] for key in ("author", "committer", "message", "tree", "url", "verification")},
            "comment_count": 0,
        },
        "url": f"{url}/commits/{commit.sha}",
        "html_url": f"{html_url(forge, repo)}/commit/{commit.sha}",
        "comments_url": f"{url}/commits/{commit.sha}/comments",
        "author": user(forge, author) if author else None,
        "committer": user(forge, committer) if committer else None,
        "parents": [
            {"sha": p, "url": f"{url}/commits/{p}", "html_url": f"{html_url(forge, repo)}/commit/{p}"}
            for p in commit.parents
        ],
    }


def simple_commit(commit: Commit) -> Shape:
    return {
        "id": commit.sha,
        "tree_id": commit.tree,
        "message": commit.message,
        "timestamp": commit.committer.date,
        "author": {"name": commit.author.name, "email": commit.author.email},
        "committer": {"name": commit.committer.name, "email": commit.committer.email},
    }


def changes(forge: Forge, repo: Repo, sha: str, files: Iterable[Change]) -> list[Shape]:
    """The files of a diff whose new side is the commit ``sha``."""
    html = html_url(forge, repo)
    found = []
    for file in files:
        path = quote(file.path)
        shape: Shape = {
            "sha": file.sha,
            "filename": file.path,
            "status": file.status,
            "additions": file.additions,
            "deletions": file.deletions,
            "changes": file.additions + file.deletions,
            "blob_url": f"{html}/blob/{sha}/{path}",
            "raw_url": f"{html}/raw/{sha}/{path}",
            "contents_url": f"{repo_url(forge, repo)}/contents/{path}?ref={sha}",
        }
        if file.patch is not None:
            shape["patch"] = file.patch
        if file.previous is not None:
            shape["previous_filename"] = file.previous
        found.append(shape)
    return found


def content(forge: Forge, repo: Repo, ref: str, entry: Entry) -> Shape:
    """A file or folder of the contents API, without its content."""
    kinds = {"tree": "dir", "commit": "submodule"}
    kind = "symlink" if entry.mode == "120000" else kinds.get(entry.kind, "file")
    path = quote(entry.path)
    own = f"{repo_url(forge, repo)}/contents/{path}?ref={quote(ref, safe='')}"
    git = f"{repo_url(forge, repo)}/git/{'trees' if kind == 'dir' else 'blobs'}/{entry.sha}"
    html = f"{html_url(forge, repo)}/{'tree' if kind == 'dir' else 'blob'}/{quote(ref)}/{path}"
    return {
        "name": entry.path.rpartition("/")[2],
        "path": entry.path,
        "sha": entry.sha,
        "size": entry.size,
        "url": own,
        "html_url": html,
        "git_url": git,
        "download_url": None if kind == "dir" else f"{html_url(forge, repo)}/raw/{quote(ref)}/{path}",
        "type": kind,
        "_links": {"self": own, "git": git, "html": html},
    }


def git_ref(forge: Forge, repo: Repo, ref: str, sha: str, kind: str = "commit") -> Shape:
    url = repo_url(forge, repo)
    return {
        "ref": ref,
        "node_id": base64.b64encode(f"Ref:{repo.id}:{ref}".encode()).decode(),
        "url": f"{url}/git/{quote(ref)}",
        "object": {"type": kind, "sha": sha, "url": f"{url}/git/{kind}s/{sha}"},
    }


def protection(forge: Forge, repo: Repo, rule: Protection) -> Shape:
    url = f"{repo_url(forge, repo)}/branches/{quote(rule.branch)}/protection"
    shape: Shape = {
        "url": url,
        "enabled": True,
        "enforce_admins": {"url": f"{url}/enforce_admins", "enabled": rule.enforce_admins},
        "allow_force_pushes": {"enabled": False},
        "allow_deletions": {"enabled": False},
    }
    if rule.required_checks:
        shape["required_status_checks"] = {
            "url": f"{url}/required_status_checks",
            "strict": rule.strict,
            "contexts": rule.required_checks,
            "contexts_url": f"{url}/required_status_checks/contexts",
            "checks": [{"context": name, "app_id": None} for name in rule.required_checks],
        }
    if rule.approvals:
        shape["required_pull_request_reviews"] = {
            "url": f"{url}/required_pull_request_reviews",
            "dismiss_stale_reviews": rule.dismiss_stale,
            "require_code_owner_reviews": False,
            "required_approving_review_count": rule.approvals,
        }
    if rule.block_pushes:
        who = [u for login in rule.bypass if (u := forge.store.user(login))]
        shape["restrictions"] = {
            **{name: f"{url}/restrictions{tail}" for name, tail in {
                "url": "", "users_url": "/users", "teams_url": "/teams", "apps_url": "/apps"}.items()},
            "users": [user(forge, u) for u in who], "teams": [], "apps": [],
        }  # fmt: skip
    return shape
