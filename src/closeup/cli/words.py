"""The option ``--words``: names on the command line, or a file of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from closeup.cli.fields import Maybe
from closeup.errors import InputError
from closeup.text import NAMED, Templates, Vocabulary, get_templates

SUFFIXES = (".txt", ".json", ".csv", ".tsv")
"""What the name of a words file ends with; a file that exists may end with anything."""


@dataclass(frozen=True)
class WordOptions:
    """The words that regions are compared with."""

    words: str
    """Names separated by commas, or a file: one name a line with synonyms after "|", or json with categories; or the
    classes of a data set, such as "ade20k-150", "pascal-context-59"."""

    templates: str = "simple"
    """The sentences around a name: a set such as "simple", "openai-80" or "vild-63", or a file of sentences."""

    def vocabulary(self) -> Vocabulary:
        """Return the words."""
        return read_words(self.words)

    def template_set(self) -> Templates:
        """Return the sentences around a name."""
        return read_templates(self.templates)


@dataclass(frozen=True)
class MaybeWordOptions:
    """The words that pixels or things are given; some heads have their own."""

    words: Maybe[str] = None
    """Names separated by commas, or a file: one name a line with synonyms after "|", or json with categories; or the
    classes of a data set, such as "ade20k-150". Trained detectors and a denseclip have words of their own, which do
    unless others are given; a denseclip knows no others."""

    templates: Maybe[str] = None
    """The sentences around a name: a set such as "openai-80" or "vild-63", or a file of sentences; "simple" unless
    given, with a trained detector those that it learned with. A denseclip has its own and no others."""

    def vocabulary(self) -> Vocabulary | None:
        """Return the words, if there are some."""
        return None if self.words is None else read_words(self.words)

    def template_set(self) -> Templates | None:
        """Return the sentences around a name, if they are given."""
        return None if self.templates is None else read_templates(self.templates)


def read_words(text: str) -> Vocabulary:
    """Return the vocabulary that the text names or lists; a file wins over a data set's classes of the same name.

    Raises:
        InputError: the file is missing or lists nothing, a name is empty, or two are equal.
    """
    if not text.strip():
        raise InputError(f"--words is empty ({text!r}). Give names separated by commas, or a file of names.")
    path = Path(text).expanduser()
    if (path.suffix.lower() in SUFFIXES and "," not in text) or _is_file(path):
        if not _is_file(path):
            raise InputError(f"--words {text}: no such file. Give names separated by commas, or a file of names.")
        return Vocabulary.from_file(path)
    return Vocabulary.named(text) if text in NAMED else Vocabulary.parse(text)


def read_templates(text: str) -> Templates:
    """Return the template set of that name, or that a file lists; InputError where there is neither."""
    return Templates.from_file(text) if _is_file(Path(text)) else get_templates(text)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a list of words may be longer than a file's name can be
        return False
