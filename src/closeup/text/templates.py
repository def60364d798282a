"""The sentences around a name: template sets by name, each with its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

from closeup.errors import DataError, InputError, suggest


@dataclass(frozen=True, slots=True)
class Templates:
    """Sentences with ``{}`` where the name goes and, if wanted, ``{article}`` for its "a" or "an"."""

    name: str
    source: str
    formats: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.formats:
            raise InputError(f"The templates {self.name!r} hold no sentence; write at least one with {{}} in it.")
        for position, sentence in enumerate(self.formats):
            if "{}" not in sentence:
                raise InputError(f"Template {position} of {self.name!r} has no {{}} for the name: {sentence!r}.")

    @classmethod
    def from_file(cls, path: str | Path) -> Templates:
        """Read a UTF-8 file with one sentence a line; ``# source:`` tells the source, other ``#`` lines are skipped."""
        path = Path(path)
        try:
            return cls._parse(path.stem, path.read_text("utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"The templates {path} cannot be read: {error}.") from error

    @classmethod
    def _parse(cls, name: str, text: str) -> Templates:
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        sources = [line.removeprefix("# source:").strip() for line in lines if line.startswith("# source:")]
        return cls(name, " ".join(sources), tuple(line for line in lines if not line.startswith("#")))

    def fill(self, name: str) -> tuple[str, ...]:
        """Return every sentence with the name in it; the name is taken as it is."""
        return tuple(form.replace("{article}", article(name)).replace("{}", name) for form in self.formats)

    def __len__(self) -> int:
        return len(self.formats)


def article(name: str) -> str:
    """Return "an" before a, e, i, o, u and "a" otherwise, by the letter and not the sound, as ViLD does."""
    return "an" if name[:1].lower() in tuple("aeiou") else "a"


def _openai(functions: Sequence[Callable[[str], str]]) -> tuple[str, ...]:
    return tuple(function("{}") for function in functions)


def _packaged(name: str) -> Templates:
    return Templates._parse(name, files("closeup.text").joinpath(f"data/{name}.txt").read_text("utf-8"))


TEMPLATES: Mapping[str, Templates] = MappingProxyType(
    {
        found.name: found
        for found in (
            Templates("name", "the bare name", ("{}",)),
            Templates("simple", "CLIP (Radford et al., ICML 2021), section 3.1.4", ("a photo of a {}.",)),
            Templates("openai-7", "CLIP, by way of open_clip", _openai(SIMPLE_IMAGENET_TEMPLATES)),
            Templates("openai-80", "CLIP, by way of open_clip", _openai(OPENAI_IMAGENET_TEMPLATES)),
            Templates(
                "regionclip-81",
                "RegionCLIP (Zhong et al., CVPR 2022): CLIP's 80 and the bare name with a full stop",
                (*_openai(OPENAI_IMAGENET_TEMPLATES), "{}."),
            ),
            Templates("cat-seg", "CAT-Seg (Cho et al., CVPR 2024)", ("A photo of a {} in the scene",)),
            _packaged("vild-14"),
            _packaged("vild-63"),
        )
    }
)
"""The template sets by name."""


def get_templates(name: str) -> Templates:
    """Return a template set by its name; InputError suggests near names. Files are read by ``Templates.from_file``."""
    if name not in TEMPLATES:
        raise InputError(f"Unknown templates {name!r}. {suggest(name, TEMPLATES)}")
    return TEMPLATES[name]
