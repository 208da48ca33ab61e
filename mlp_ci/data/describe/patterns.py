"""What texts look like: a regular expression that they share, and names and forms of personal data. Pure functions."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Fewer distinct values than this show no pattern that the next one would follow.
FEWEST_VALUES = 20
FEWEST_CODES = 8  # enough where all are made of one class and equally long
LONGEST = 64
MOST_PARTS = 8
_RUN = re.compile(r"[A-Z]+|[a-z]+|[0-9]+|.", re.DOTALL)
_CLASSES = {"A": "[A-Z]", "a": "[a-z]", "0": r"\d", "h": "[0-9a-f]", "x": "[A-Z0-9]"}

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_EMAIL = r"[^@\s]+@[^@\s]+\.[^@\s]+"
_IP = r"\d{1,3}(\.\d{1,3}){3}"
_PHONE = r"(?=.*[+() /-])\+?[\d][\d() /.-]{6,}\d|\+\d{7,15}|\(\d{2,5}\)[\d /.-]{5,}\d"
_CARD = r"\d{4}([ -]?)\d{4}\1\d{4}\1\d{4}"
KNOWN = {_UUID: "an UUID"}

# Words in the name of a column → what it probably holds.
_PERSONAL_WORDS = {
    "an e-mail address": {"email", "mail", "e-mail"},
    "a phone number": {"phone", "telephone", "mobile", "msisdn", "fax"},
    "a person's name": {"firstname", "lastname", "surname", "fullname", "forename", "middlename", "username"},
    "a street address": {"street", "address"},
    "a date of birth": {"birthdate", "birthday", "dob", "birth"},
    "an identity number": {"ssn", "passport", "iban", "taxid", "nino"},
    "an IP address": {"ip", "ipaddress", "ipv4", "ipv6"},
}
_NAMED = {"first", "last", "full", "middle", "customer", "user", "person", "employee", "patient", "client", "contact"}
_KEY_WORDS = {"id", "key", "uuid", "guid", "no", "number", "nr", "code", "ref", "hash", "identifier"}


def pattern_of(values: Sequence[str], *, exact: bool = False, words: bool = True) -> str | None:
    """A regular expression (RE2) that all ``values`` match as a whole and strangers do not; None where they share none.

    ``exact`` allows runs of the lengths that were seen and no other. With ``words`` a run of letters that is the same
    everywhere becomes itself: ``N\\d+``.
    """
    if any(not v or len(v) > LONGEST for v in values) or len(set(values)) < FEWEST_CODES:
        return None
    for known in KNOWN:
        if all(re.fullmatch(known, v) for v in values):
            return known
    kind = _one_class(values)
    if kind:
        return _repeated(_CLASSES[kind], {len(v) for v in values}, exact=exact)
    if len(set(values)) < FEWEST_VALUES:
        return None
    split = [[m[0] for m in _RUN.finditer(v)] for v in values]
    shapes = {tuple(map(_class, runs)) for runs in split}
    longest = max(shapes, key=len)
    if len(longest) > 2 * MOST_PARTS or any(shape != longest[: len(shape)] for shape in shapes):
        return None
    shortest = min(map(len, shapes))
    if shortest == 0 or (len(longest) - shortest) > 2 or not any(c in _CLASSES for c in longest[:shortest]):
        return None
    parts = [
        _part(kind, {runs[i] for runs in split if len(runs) > i}, exact=exact, words=words)
        for i, kind in enumerate(longest)
    ]
    return "".join(parts[:shortest]) + "".join(f"(?:{p})?" for p in parts[shortest:])


def _class(run: str) -> str:
    """A for capitals, a for small letters, 0 for digits, else the character itself."""
    first = run[0]
    if "A" <= first <= "Z":
        return "A"
    if "a" <= first <= "z":
        return "a"
    return "0" if "0" <= first <= "9" else first


def _one_class(values: Sequence[str]) -> str:
    """The class that a code of fixed length is made of: hexadecimal digits, or capitals and digits mixed."""
    if len({len(v) for v in values}) > 1 or len(values[0]) < 2:
        return ""
    for kind in ("0", "A", "a"):
        if all(re.fullmatch(f"{_CLASSES[kind]}+", v) for v in values):
            return kind
    if len(values[0]) >= 16 and all(re.fullmatch("[0-9a-f]+", v) for v in values):
        return "h"
    mixed = {tuple(map(_class, _RUN.findall(v))) for v in values}
    return "x" if len(mixed) > 2 and all(re.fullmatch("[A-Z0-9]+", v) for v in values) else ""


def _part(kind: str, runs: set[str], *, exact: bool, words: bool) -> str:
    if kind not in _CLASSES:
        return re.escape(kind)
    if words and kind != "0" and len(runs) == 1:
        return re.escape(next(iter(runs)))
    return _repeated(_CLASSES[kind], {len(r) for r in runs}, exact=exact)


def _repeated(kind: str, lengths: set[int], *, exact: bool) -> str:
    if len(lengths) == 1:
        (length,) = lengths
        return kind if length == 1 else f"{kind}{{{length}}}"
    return f"{kind}{{{min(lengths)},{max(lengths)}}}" if exact else f"{kind}+"


def personal(name: str, values: Sequence[str]) -> str:
    """What personal data a column seems to hold, from its name and some of its values; empty where it seems none."""
    words = words_of(name)
    joined = {*words, *(a + b for a, b in itertools.pairwise(words))}
    for what, known in _PERSONAL_WORDS.items():
        if joined & known:
            return what
    if "name" in words and (len(words) == 1 or set(words) & _NAMED):
        return "a person's name"
    for pattern, what in ((_EMAIL, "an e-mail address"), (_IP, "an IP address"), (_CARD, "a card number")):
        if _most(pattern, values):
            return what
    return "a phone number" if _most(_PHONE, values) and not _most(r"\d{4}-\d{2}-\d{2}.*", values) else ""


def looks_like_key(name: str) -> bool:
    """Whether a column's name is one that keys have."""
    words = words_of(name)
    return bool(words) and (bool(set(words) & _KEY_WORDS) or words[-1].endswith("id"))


def _most(pattern: str, values: Sequence[str]) -> bool:
    return bool(values) and sum(bool(re.fullmatch(pattern, v)) for v in values) > len(values) / 2


def words_of(name: str) -> list[str]:
    """The words of a column's name in small letters: ``customerFirst_name`` → customer, first, name."""
    return [w.lower() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]
