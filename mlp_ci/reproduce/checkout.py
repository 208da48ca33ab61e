"""A work tree of an earlier commit, apart from the one that lies here, with the same DVC remote and cache."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mlp_ci import dvc
from mlp_ci.errors import InputError, OutsideError
from mlp_ci.git import git

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlp_ci.context import Context


@contextmanager
def checked_out(ctx: Context, commit: str) -> Iterator[Context]:
    """The context of a fresh work tree at ``commit``, which is gone after the block. Nothing here is touched.

    Raises InputError when the clone that lies here has no such commit.
    """
    top = Path(git(ctx.repo, "rev-parse", "--show-toplevel"))
    with TemporaryDirectory(prefix="mlp-ci-reproduce-") as folder:
        tree = Path(folder) / "tree"
        # --shared: the objects stay where they are; what is fetched later goes into the new clone.
        git(top, "clone", "--quiet", "--shared", "--no-checkout", str(top), str(tree))
        _have(top, tree, commit)
        git(tree, "checkout", "--quiet", "--detach", commit)
        dvc.lend(top, tree)
        repo = tree / ctx.repo.resolve().relative_to(top.resolve())
        yield replace(ctx, repo=repo, work=Path(folder) / "work", cache=ctx.cache_folder)


def _have(top: Path, tree: Path, commit: str) -> None:
    try:
        git(tree, "cat-file", "-e", f"{commit}^{{commit}}")
    except OutsideError:
        try:
            address = git(top, "remote", "get-url", "origin")
            git(tree, "fetch", "--quiet", "--no-tags", address, commit)
        except OutsideError as error:
            msg = f"the commit {commit[:12]} of this version is not in this clone, and its origin does not give it"
            fix = "`git fetch --unshallow origin`; in a job, `fetch-depth: 0` of actions/checkout"
            raise InputError(msg, why=error.what, fix=fix) from error
