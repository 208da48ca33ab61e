"""GitHub-flavoured Markdown of hostile origin → safe HTML.

Raw HTML is shown as the text it is, except for a few tags without attributes (GitHub lets them through, and mlp-ci's
own comments fold tables with them); HTML comments vanish. Images from elsewhere become links: a page loads nothing
foreign.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

if TYPE_CHECKING:
    from markdown_it.renderer import RendererHTML

_TAGS = ("details", "summary", "sub", "sup", "kbd", "br")
_TAG = re.compile(rf"<!--.*?(?:-->|\Z)|<(/?)({'|'.join(_TAGS)})(\s+open)?\s*/?>", re.S | re.I)
_BARE = re.compile(r"https?://[^\s<>\"'`|]*[^\s<>\"'`|.,;:!?)\]}*_]")
_BOX = re.compile(r"\[([ xX])\] ")
_LARGEST = 512 * 1024
Env = MutableMapping[str, Any]


def render(text: str | None, base: str = "", raw: str = "") -> Markup:
    """HTML of ``text``. Relative links start at ``base``, images at ``raw`` (paths of this forge that end in /)."""
    env: Env = {"open": [], "base": base, "raw": raw}
    html = _MARKDOWN.render((text or "")[:_LARGEST], env)
    html += "".join(f"</{tag}>" for tag in reversed(env["open"]))
    return Markup(html)


def _markdown() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    for name, rule in {"html_block": _html, "html_inline": _html, "image": _image, "link_open": _link}.items():
        parser.add_render_rule(name, rule)
    for name in ("th_open", "td_open"):
        parser.add_render_rule(name, _cell)
    for name in ("table_open", "table_close"):
        parser.add_render_rule(name, _wrap_table)
    parser.core.ruler.push("bare_links", _find_links)
    return parser


def _html(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Env) -> str:
    text, out, at = tokens[index].content, [], 0
    for match in _TAG.finditer(text):
        out += [escape(text[at : match.start()]), _tag(match, env["open"])]
        at = match.end()
    return "".join([*out, escape(text[at:])])


def _tag(match: re.Match[str], opened: list[str]) -> str:
    """An allowed tag. Closing what is not open shows as text: nothing may end an element of the page around it."""
    if match[2] is None:
        return ""
    name = match[2].lower()
    if name == "br":
        return "<br>"
    if not match[1]:
        opened.append(name)
        return "<details open>" if name == "details" and match[3] else f"<{name}>"
    if name not in opened:
        return escape(match[0])
    closed: list[str] = []
    while not closed or closed[-1] != name:
        closed.append(opened.pop())
    return "".join(f"</{each}>" for each in closed)


def _image(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Env) -> str:
    token = tokens[index]
    source, label = str(token.attrGet("src") or ""), escape(token.content or "image")
    if _foreign(source):
        return f'<a href="{escape(source)}" rel="nofollow noopener noreferrer">{label}</a>'
    return f'<img src="{escape(_inside(env["raw"], source))}" alt="{label}">'


def _link(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Env) -> str:
    token = tokens[index]
    target = str(token.attrGet("href") or "")
    if _foreign(target):
        token.attrSet("rel", "nofollow noopener noreferrer")
    elif not target.startswith("#"):
        token.attrSet("href", _inside(env["base"], target))
    return self.renderToken(tokens, index, options, env)


def _foreign(target: str) -> bool:
    try:
        return bool(urlsplit(target).scheme) or target.startswith("//")
    except ValueError:  # such as an unfinished IPv6 address
        return True


def _inside(base: str, target: str) -> str:
    return urljoin(base, target) if base else target


def _cell(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Env) -> str:
    """Alignment as a class: the pages' security policy allows no style attributes."""
    token = tokens[index]
    side = str(token.attrs.pop("style", "")).removeprefix("text-align:")
    if side in ("right", "center"):
        token.attrSet("class", side)
    return self.renderToken(tokens, index, options, env)


def _wrap_table(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Env) -> str:
    """A wide table scrolls by itself instead of the page."""
    inner = self.renderToken(tokens, index, options, env)
    if tokens[index].type == "table_open":
        return f'<div class="scroll" tabindex="0" role="region" aria-label="Table">{inner}'
    return f"{inner}</div>"


def _find_links(state: Any) -> None:
    for token in state.tokens:
        if token.type == "inline" and token.children:
            token.children = _linked(token.children)


def _linked(children: list[Token]) -> list[Token]:
    out: list[Token] = []
    inside = 0
    for number, child in enumerate(children):
        inside += {"link_open": 1, "link_close": -1}.get(child.type, 0)
        if child.type != "text" or inside:
            out.append(child)
            continue
        box = _BOX.match(child.content) if number == 0 else None
        text = f"{'☐' if box[1] == ' ' else '☑'} {child.content[box.end() :]}" if box else child.content
        out += _split(text)
    return out


def _split(text: str) -> list[Token]:
    out, at = [], 0
    for match in _BARE.finditer(text):
        out += [_text(text[at : match.start()]), Token("link_open", "a", 1, attrs={"href": match[0]}), _text(match[0])]
        out.append(Token("link_close", "a", -1))
        at = match.end()
    return [*out, _text(text[at:])]


def _text(content: str) -> Token:
    return Token("text", "", 0, content=content)


_MARKDOWN = _markdown()
