"""Words of English captions with their part of speech, by libraries that know grammar."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import HanTa
from HanTa.HanoverTagger import HanoverTagger
from lemminflect import getLemma

from closeup.errors import InputError

Kind: TypeAlias = Literal["noun", "adjective", "other"]

LONGEST = 40
"""Letters beyond which something is no word; taggers that look into words take minutes over thousands of them."""


class Token(NamedTuple):
    """One word or sign of a caption.

    ``singulars`` are what a noun may be the plural of, likeliest last; the noun itself where it is no plural.
    """

    text: str
    kind: Kind
    singulars: tuple[str, ...] = ()


Tagger: TypeAlias = Callable[[str], list[Token]]
"""Cuts a caption into tokens."""

_TOKEN = re.compile(r"[^\W_]+(?:-[^\W_]+)*|['\u2019]s?\b|\S")


@lru_cache(maxsize=2)
def get_tagger(name: str = "hanta") -> Tagger:
    """Return the tagger of a name: "hanta", or "spacy:MODEL" for a spaCy pipeline that is installed.

    HanTa (Wartena, KONVENS 2019) brings its English model along. spaCy's models are downloads of their own
    (``python -m spacy download en_core_web_sm``); RegionCLIP's parser stands on one.

    Raises:
        InputError: another name, or spaCy or its model is not installed.
    """
    kind, _, model = name.partition(":")
    if kind == "hanta" and not model:
        return _Hanta()
    if kind == "spacy" and model:
        return _Spacy(model)
    raise InputError(f"Unknown tagger {name!r}. Name hanta, or spacy:MODEL such as spacy:en_core_web_sm.")


class _Hanta:
    """HanTa's tags (those of the British National Corpus), LemmInflect's singulars."""

    def __init__(self) -> None:
        self._tagger = HanoverTagger(str(Path(HanTa.__file__).parent / "morphmodel_en.pgz"))

    def __call__(self, caption: str) -> list[Token]:
        words = [word if len(word) <= LONGEST else "…" for word in _TOKEN.findall(caption)]
        # In capitals throughout, every noun would look like a name.
        given = [word.lower() for word in words] if caption.isupper() else words
        return [self._token(word, tag) for word, _, tag in self._tagger.tag_sent(given)]

    def _token(self, word: str, tag: str) -> Token:
        if tag in ("NN0", "NN1"):
            return Token(word, "noun", (word.lower(),))
        if tag == "NN2":
            return Token(word, "noun", singulars(word.lower()))
        return Token(word, "adjective" if tag.startswith("AJ") else "other")


class _Spacy:
    """The tags and lemmas of a spaCy pipeline."""

    def __init__(self, model: str) -> None:
        try:
            import spacy

            self._pipeline = spacy.load(model, exclude=["ner"])
        except ImportError as error:
            raise InputError("spaCy is not installed. pip install spacy, or use the tagger hanta.") from error
        except OSError as error:
            raise InputError(
                f"spaCy has no model {model!r}: python -m spacy download {model}, or use the tagger hanta."
            ) from error

    def __call__(self, caption: str) -> list[Token]:
        kinds: dict[str, Kind] = {"NOUN": "noun", "ADJ": "adjective"}
        tokens = []
        for word in self._pipeline(caption):
            kind = kinds.get(word.pos_, "other") if len(word.text) <= LONGEST else "other"
            tokens.append(Token(word.text, kind, (word.lemma_.lower(),) if kind == "noun" else ()))
        return tokens


@lru_cache(maxsize=1 << 16)
def singulars(word: str) -> tuple[str, ...]:
    """Return what a lower-case English noun may be the plural of, likeliest last; itself where it has no singular."""
    found: Sequence[str] = () if word in PLURAL_ONLY else getLemma(word, upos="NOUN")
    return tuple(found) or (word,)


PLURAL_ONLY = frozenset({"pants", "shorts", "tights", "binoculars", "goods", "stairs"})
"""Words without a singular that means the same, which LemmInflect takes for plurals."""
