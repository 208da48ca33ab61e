"""Numbers, shares and texts of data as people read them, in reports, tables and drawings alike."""

from __future__ import annotations

from mlp_ci.report import cell_text


def cut(text: str, longest: int = 40) -> str:
    """A text in one line of at most ``longest`` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


def show_share(share: float) -> str:
    """A share in per cent, in as many digits as a bound on it may have; never 0 % or 100 % where it is not."""
    if share in (0.0, 1.0):
        return f"{share * 100:.0f} %"
    if 0 < share < 0.0001:
        return "<0.01 %"
    return ">99.99 %" if 0.9999 < share < 1 else f"{share * 100:.4g} %"


def round_share(share: float) -> str:
    """A share in per cent beside a bar, which says the rest."""
    if 0 < share < 0.001:
        return "<0.1 %"
    return f"{share * 100:.1f} %" if 0 < share < 0.1 else f"{share * 100:.0f} %"


def show_number(value: float | None) -> str:
    """Whole numbers whole, others in four digits, very large ones with a power of ten; nothing for None."""
    if value is None:
        return ""
    if abs(value) >= 1e15:
        return f"{value:.4g}"
    return f"{int(value):,}" if float(value).is_integer() else cell_text(float(value))
