"""The drawings of docs/explanation/rollout-strategies.md: ``python tools/pictures.py`` writes them to docs/images.

The same program gives the same bytes; the picture of intervals is a stream of simulated requests with a fixed seed.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from pathlib import Path

IMAGES = Path(__file__).resolve().parents[1] / "docs/images"
OLD, NEW, COPY, INK, SOFT = "#ccd5e0", "#2563c9", "#8fb1ea", "#1c2430", "#48556a"
STYLE = (
    'text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:#1c2430}'
    ".t{font-size:17px;font-weight:650}.s{font-size:13px;fill:#48556a}.w{font-size:12.5px;fill:#fff;font-weight:600}"
    ".h{font-size:13px;fill:#48556a;paint-order:stroke;stroke:#fbfcfe;stroke-width:4px;stroke-linejoin:round}"
)
LEFT, RIGHT, TALL = 300.0, 872.0, 66.0


@dataclass(frozen=True)
class Part:
    """A stretch of time: how much of it (0 to 1), the new version's share of the answers, and a word on it."""

    until: float
    share: float
    word: str = ""


@dataclass(frozen=True)
class Strategy:
    """One row. ``mirrored`` is until when the new version gets a copy; ``warm`` from when the old one waits."""

    name: str
    lines: tuple[str, str]
    parts: tuple[Part, ...]
    mirrored: float = 0.0
    tried: float = 0.08
    warm: float = 0.0


STRATEGIES = (
    Strategy(
        "canary",
        ("A few answers first, then more.", "A step ends when it can be decided."),
        (Part(0.42, 0.01, "1 %"), Part(0.68, 0.1, "10 %"), Part(0.84, 0.5, "50 %"), Part(1.0, 1.0, "100 %")),
        warm=0.84,
    ),
    Strategy(
        "ab",
        ("Half of the users each, always", "the same, until the effect is known."),
        (Part(0.76, 0.5, "50 %"), Part(1.0, 1.0, "100 %")),
        warm=0.76,
    ),
    Strategy(
        "shadow",
        ("A copy of every request. Nobody gets", "its answers until they are compared."),
        (Part(0.68, 0.0), Part(1.0, 1.0, "100 %")),
        mirrored=0.68,
        warm=0.68,
    ),
    Strategy(
        "blue-green",
        ("Tried beside the old one, then", "switched; the old one stays warm."),
        (Part(0.3, 0.0), Part(1.0, 1.0, "100 %")),
        tried=0.3,
        warm=0.3,
    ),
    Strategy(
        "all-at-once",
        ("Tried on its own example, then", "switched. For what nobody waits for."),
        (Part(0.08, 0.0), Part(1.0, 1.0, "100 %")),
        warm=0.08,
    ),
)


def strategies() -> str:
    """Who answers over time, strategy by strategy."""
    height = 70 + 106 * len(STRATEGIES)
    said = "Who answers over time, for each strategy: " + "; ".join(
        f"{s.name}: {' '.join(s.lines)}" for s in STRATEGIES
    )
    rows = "".join(_row(s, 66 + 106 * i) for i, s in enumerate(STRATEGIES))
    return _sheet(900, height, said, _legend() + rows)


def _legend() -> str:
    found, x = "", 30
    for colour, word in ((OLD, "old version answers"), (NEW, "new version answers"), (COPY, "copy, nobody gets it")):
        found += f'<rect x="{x}" y="26" width="20" height="13" rx="3" fill="{colour}"/>'
        found += f'<text class="s" x="{x + 28}" y="37">{word}</text>'
        x += 190
    found += f'<path d="M{x} 33H{x + 20}" stroke="{SOFT}" stroke-width="2" stroke-dasharray="4 3"/>'
    return found + f'<text class="s" x="{x + 28}" y="37">old version, kept warm</text>'


def _row(strategy: Strategy, top: float) -> str:
    base = top + TALL
    drawn = f'<text class="t" x="30" y="{top + 20}">{strategy.name}</text>'
    drawn += "".join(f'<text class="s" x="30" y="{top + 42 + 19 * i}">{t}</text>' for i, t in enumerate(strategy.lines))
    drawn += f'<rect x="{LEFT}" y="{top}" width="{RIGHT - LEFT}" height="{TALL}" rx="6" fill="{OLD}"/>'
    began = 0.0
    for part in strategy.parts:
        left, right, high = _x(began), _x(part.until), TALL * part.share
        drawn += (
            f'<rect x="{left:.1f}" y="{base - high:.1f}" width="{right - left:.1f}" height="{high:.1f}" fill="{NEW}"/>'
        )
        if part.word:
            style, y = ("w", base - 9) if part.share > 0.3 else ("s", base - high - 7)
            drawn += f'<text class="{style}" x="{left + 8:.1f}" y="{y:.1f}">{part.word}</text>'
        began = part.until
    if strategy.mirrored:
        drawn += (
            f'<rect x="{LEFT}" y="{base + 3}" width="{_x(strategy.mirrored) - LEFT:.1f}" height="18" fill="{COPY}"/>'
        )
        drawn += f'<text class="s" x="{LEFT + 8}" y="{base + 17}" style="fill:{INK}">100 % copied</text>'
    if strategy.tried > 0.1:
        drawn += f'<text class="s" x="{LEFT + 8}" y="{base - 9}">tried without traffic</text>'
    warm = f"M{_x(strategy.warm):.1f} {base + 9}H{RIGHT}"
    drawn += f'<path d="{warm}" stroke="{SOFT}" stroke-width="2" stroke-dasharray="4 3"/>'
    return drawn


def _x(share: float) -> float:
    return LEFT + (RIGHT - LEFT) * share


# ---------------------------------------------------------------- the interval that narrows


@dataclass(frozen=True)
class Ending:
    """How one release's bounds go: the true effect in margins, the share of the width they take, and the words."""

    word: str
    effect: float
    until: float
    colour: str
    lines: tuple[str, str]


ENDINGS = (
    Ending("pass", -0.05, 1.0, "#1d7a4a", ("The upper bound is below the", "margin: on to the next step.")),
    Ending("fail", 2.2, 0.5, "#b3261e", ("Worse, and that is no chance:", "back at once, quarantined.")),
    Ending("insufficient", 0.5, 0.24, "#845400", ("It may be either. More requests", "are needed, or a person.")),
)
PANEL, GAP, TOP, BASE = 262.0, 22.0, 84.0, 300.0


def narrowing() -> str:
    """Three releases in one step: harmless, harmful, and one with too little traffic to say."""
    drawn = "".join(_ending(e, 30 + (PANEL + GAP) * i) for i, e in enumerate(ENDINGS))
    said = "How bounds of a difference narrow with every request: " + "; ".join(
        f"{e.word}: {' '.join(e.lines)}" for e in ENDINGS
    )
    return _sheet(892, 372, said, drawn)


def _y(value: float) -> float:
    """The height of a difference in margins; 0 is no difference, 1 is where harm begins."""
    return min(BASE, max(TOP, BASE - 78 - value * 48))


def _ending(ending: Ending, left: float) -> str:
    right = left + PANEL
    drawn = f'<text class="t" x="{left}" y="40" style="fill:{ending.colour}">{ending.word}</text>'
    drawn += f'<text class="s" x="{left}" y="62">requests of the new version →</text>'
    drawn += f'<rect x="{left}" y="{TOP}" width="{PANEL}" height="{_y(1) - TOP:.1f}" fill="#b3261e" opacity="0.05"/>'
    drawn += _funnel((left, right), ending)
    drawn += f'<path d="M{left} {_y(1):.1f}H{right}" stroke="#b3261e" stroke-width="2" stroke-dasharray="3 5"/>'
    drawn += f'<path d="M{left} {_y(0):.1f}H{right}" stroke="#6b7890" stroke-width="1.5" stroke-dasharray="7 5"/>'
    drawn += f'<text class="h" x="{right - 6}" y="{_y(1) - 7:.1f}" text-anchor="end">harm begins</text>'
    drawn += f'<text class="h" x="{right - 6}" y="{_y(0) + 36:.1f}" text-anchor="end">no difference</text>'
    drawn += f'<path d="M{left} {TOP}V{BASE}H{right}" stroke="#d8dee8" stroke-width="1.5" fill="none"/>'
    return drawn + "".join(
        f'<text class="s" x="{left}" y="{BASE + 26 + 19 * i}">{t}</text>' for i, t in enumerate(ending.lines)
    )


def _funnel(span: tuple[float, float], ending: Ending) -> str:
    """A band around a running mean of noise, as wide as a bound that holds at every moment is."""
    left, right = span
    chance, total, points = random.Random(f"{ending.word} 3"), 0.0, []
    for i in range(1, int(120 * ending.until) + 1):
        total += chance.gauss(ending.effect, 2.2)
        points.append((left + (right - left) * i / 120, total / i, 8.2 / i**0.5))
    upper = [f"{x:.1f} {_y(m + h):.1f}" for x, m, h in points]
    lower = [f"{x:.1f} {_y(m - h):.1f}" for x, m, h in reversed(points)]
    line = "L".join(f"{x:.1f} {_y(m):.1f}" for x, m, _ in points)
    band = f'<path d="M{"L".join([*upper, *lower])}Z" fill="{ending.colour}" opacity="0.16"/>'
    return band + f'<path d="M{line}" stroke="{ending.colour}" stroke-width="2" fill="none"/>'


def _sheet(width: int, height: int, said: str, drawn: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{said}">\n'
        f"<style>{STYLE}</style>\n"
        f'<rect x="0" y="0" width="{width}" height="{height}" rx="18" fill="#fbfcfe" stroke="#d8dee8"/>\n'
        f"{drawn}\n</svg>\n"
    )


def main() -> None:
    for name, drawing in (("strategies.svg", strategies()), ("rollout-bounds.svg", narrowing())):
        (IMAGES / name).write_text(drawing, encoding="utf-8")
        sys.stdout.write(f"{IMAGES / name}\n")


if __name__ == "__main__":
    main()
