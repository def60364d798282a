"""Named rules that turn a category name as data sets write it into words that a text tower reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from closeup.errors import InputError, suggest


def verbatim(name: str) -> str:
    """Keep the name as it is, as OVSeg does: ``"building, edifice"`` stays one string."""
    return name.strip()


def vild(name: str) -> str:
    """Lower case, ``_`` to a space, ``/`` to "or", no full stop at the end; hyphens stay (ViLD, CLIPSelf)."""
    return name.strip().lower().replace("_", " ").replace("/", " or ").rstrip(".").strip()


def regionclip(name: str) -> str:
    """Commas, parentheses and ``_`` go, ``+`` becomes a space (RegionCLIP, clip_prompt_utils.py).

    The words inside the parentheses stay: without them LVIS would have two classes called "bow".
    """
    spaced = name.replace("_", " ").replace("+", " ")
    return " ".join(spaced.replace(",", "").replace("(", "").replace(")", "").split())


CLEANERS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {"verbatim": verbatim, "vild": vild, "regionclip": regionclip}
)
"""The rules by name."""


def clean_name(name: str, rule: str = "vild") -> str:
    """Apply the named rule to a category name; InputError if there is no such rule, or if no letter is left."""
    if rule not in CLEANERS:
        raise InputError(f"Unknown rule for cleaning names {rule!r}. {suggest(rule, CLEANERS)}")
    cleaned = CLEANERS[rule](name)
    if not cleaned:
        raise InputError(f"The rule {rule!r} leaves nothing of the name {name!r}; use another name or rule.")
    return cleaned


def clean_names(names: Iterable[str], rule: str = "vild") -> list[str]:
    """Apply the named rule to category names; InputError, too, if it makes one of two."""
    seen: dict[str, str] = {}
    for name in names:
        cleaned = clean_name(name, rule)
        if cleaned in seen:
            raise InputError(
                f"The names {seen[cleaned]!r} and {name!r} both read {cleaned!r} after the rule {rule!r}; "
                "rename one, or use the rule 'verbatim'."
            )
        seen[cleaned] = name
    return list(seen)
