"""Concepts mined from captions: the nouns and noun phrases that enough pictures are described with.

Source: Zhong et al., RegionCLIP, CVPR 2022 (arXiv 2112.09106), section 3.2, where a parser cuts concepts out of
captions and those that come up less than 100 times are dropped. No script of it was published, and the rule as it is
told does not give the published pools (4,764 concepts of COCO captions, 6,790 of CC3M): ``read_concepts`` reads those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

from closeup.data.atomic import replacing
from closeup.errors import DataError, InputError
from closeup.text.tagging import Tagger, Token, get_tagger

Form: TypeAlias = Literal["nouns", "compounds", "phrases"]
"""What a noun phrase gives: its last noun; also with the nouns before it; also with the adjectives before those."""

STOP_WORDS = frozenset(files("closeup.text").joinpath("data/concept-stop-words.txt").read_text("utf-8").split())
"""Nouns that name no object: measures, places within a picture, and words for the picture itself."""


LONGEST = 4
"""Nouns of a compound, at most: of a longer run, which is a list and no name, the last ones are taken."""


class Concept(NamedTuple):
    """A concept, and how many pictures' captions name it."""

    name: str
    pictures: int


class _Phrase(NamedTuple):
    """A concept as it stands: what comes before its last noun, and what that may be the plural of."""

    before: tuple[str, ...]
    heads: tuple[str, ...]


@dataclass(slots=True)
class ConceptMiner:
    """Counts the concepts of pictures' captions, each once a picture.

    A plural counts as its singular. Where it may be the plural of several words ("leaves"), it is of the one that the
    captions have most often in the singular. Only English is understood: what is of another script, or no word at all,
    is passed over.

    Raises:
        InputError: a form that there is not.
    """

    form: str = "compounds"
    stop_words: frozenset[str] = STOP_WORDS
    tagger: Tagger | str = "hanta"

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise InputError(f"Concepts have one of the forms {', '.join(get_args(Form))}, not {self.form!r}.")

    def __call__(
        self,
        captions: Iterable[Sequence[str]],
        *,
        min_count: int = 1,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Concept]:
        """Return the concepts of at least ``min_count`` pictures, the commonest first, equally common ones by name.

        Args:
            captions: The captions of each picture.
            min_count: The fewest pictures; RegionCLIP's is 100.
            on_progress: Called with the number of pictures that were read.

        Raises:
            InputError: ``min_count`` below 1.
        """
        if min_count < 1:
            raise InputError(f"min_count is {min_count}; a concept is named by at least one picture.")
        tagger = get_tagger(self.tagger) if isinstance(self.tagger, str) else self.tagger
        seen: list[frozenset[_Phrase]] = []
        singular: Counter[str] = Counter()
        known: dict[_Phrase, _Phrase] = {}
        for number, sentences in enumerate(captions, start=1):
            phrases = {phrase for sentence in sentences for phrase in self._phrases(tagger(sentence))}
            singular.update({phrase.heads[0] for phrase in phrases if len(phrase.heads) == 1})
            seen.append(frozenset(known.setdefault(phrase, phrase) for phrase in phrases))
            if on_progress is not None:
                on_progress(number)
        names = {phrase: self._name(phrase, singular) for phrase in known}
        counts = Counter(name for phrases in seen for name in {names[phrase] for phrase in phrases})
        kept = [Concept(name, count) for name, count in counts.items() if count >= min_count]
        return sorted(kept, key=lambda concept: (-concept.pictures, concept.name))

    def nouns(self, captions: Sequence[str]) -> list[str]:
        """Return the concepts of one picture, each once, in the order in which its captions name them.

        A plural counts as its likeliest singular: other pictures have no say.
        """
        tagger = get_tagger(self.tagger) if isinstance(self.tagger, str) else self.tagger
        phrases = (phrase for caption in captions for phrase in self._phrases(tagger(caption)))
        return list(dict.fromkeys(self._name(phrase, Counter()) for phrase in phrases))

    def _phrases(self, tokens: Sequence[Token]) -> Iterator[_Phrase]:
        for adjectives, nouns in _groups(tokens):
            heads = tuple(word for word in nouns[-1].singulars if word not in self.stop_words)
            if not heads or not any(letter.isalpha() for letter in heads[0]):
                continue
            yield _Phrase((), heads)
            before = tuple(noun.text.lower() for noun in nouns[-LONGEST:-1])
            if self.form != "nouns" and before:
                yield _Phrase(before, heads)
            if self.form == "phrases" and adjectives:
                yield _Phrase((*adjectives, *before), heads)

    @staticmethod
    def _name(phrase: _Phrase, singular: Counter[str]) -> str:
        # The last of equals: the likeliest.
        head = max(reversed(phrase.heads), key=lambda word: singular[word])
        return " ".join((*phrase.before, head))


def write_concepts(concepts: Sequence[Concept], path: Path) -> None:
    """Write one concept a line, the commonest first; with counts, after a comma, where the file ends in ``.csv``."""
    counted = path.suffix.lower() == ".csv"
    lines = [f"{concept.name},{concept.pictures}" if counted else concept.name for concept in concepts]
    with replacing(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def read_concepts(path: str | Path) -> list[str]:
    """Return the names of a pool of concepts, each once, in the order of the file.

    One a line, up to the first comma, as in RegionCLIP's published pools; lines that start with ``#`` are skipped.

    Raises:
        DataError: the file cannot be read, or names nothing.
    """
    path = Path(path).expanduser()
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of concepts: {error}.") from error
    names = [line.split(",")[0].strip() for line in lines if not line.startswith("#")]
    found = list(dict.fromkeys(name for name in names if name))
    if not found:
        raise DataError(f"{path} names no concepts; write one a line.")
    return found


def _groups(tokens: Sequence[Token]) -> Iterator[tuple[tuple[str, ...], list[Token]]]:
    """Yield every run of nouns, and the adjectives right before it."""
    adjectives: list[str] = []
    nouns: list[Token] = []
    for token in (*tokens, Token("", "other")):
        if token.kind == "noun":
            nouns.append(token)
            continue
        if nouns:
            yield tuple(adjectives), nouns
            adjectives, nouns = [], []
        adjectives = [*adjectives, token.text.lower()] if token.kind == "adjective" else []
