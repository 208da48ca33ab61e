"""The forge's web pages: rendered on the server, with a few lines of script to keep a running run fresh."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.sandbox.forge.pages.session import login_code

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from mlp_ci.sandbox.forge.access import Forge

__all__ = ["login_code", "pages"]


def pages(forge: Forge) -> list[BaseRoute]:
    """All pages of ``forge`` as routes; give it to ``server.serve`` or ``ForgeServer``."""
    from mlp_ci.sandbox.forge.pages import actions, code, issues, login, overview, pulls
    from mlp_ci.sandbox.forge.pages.web import routes

    return routes(forge, [module.group for module in (login, pulls, issues, actions, code, overview)])
