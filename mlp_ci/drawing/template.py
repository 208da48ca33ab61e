"""A page from its template: every name and value comes from data, so all of them are escaped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci.printable import in_one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FOLDER = Path(__file__).parent


def fill(template: Path, filters: Mapping[str, Callable[..., Any]], values: Mapping[str, Any]) -> str:
    """The whole page. ``{% include "style.css" %}`` in a template is the style of all pages."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, FOLDER]),
        autoescape=True,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(filters)
    return environment.get_template(template.name).render(values)


def _visible(value: Any) -> Any:
    """What turns the direction of text around, or ends its line, is shown as an escape; markup of ours stays."""
    return in_one_line(value) if type(value) is str else value
