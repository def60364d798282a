"""Concepts out of captions: which words are taken, as what, and how often."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from closeup.data.world import World
from closeup.data.world.lexicon import GROUNDS, SHAPES
from closeup.errors import DataError, InputError
from closeup.text import Vocabulary
from closeup.text.concepts import LONGEST, Concept, ConceptMiner, Form, read_concepts, write_concepts
from closeup.text.tagging import get_tagger, singulars


def mined(*captions: str, form: Form = "compounds", min_count: int = 1) -> dict[str, int]:
    found = ConceptMiner(form=form)([[caption] for caption in captions], min_count=min_count)
    return {concept.name: concept.pictures for concept in found}


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("nouns", {"sign", "hydrant", "frisbee"}),
        ("compounds", {"sign", "stop sign", "hydrant", "fire hydrant", "frisbee"}),
        ("phrases", {"sign", "stop sign", "hydrant", "fire hydrant", "frisbee", "large red frisbee"}),
    ],
)
def test_a_noun_phrase_gives_what_its_form_says(form: Form, expected: set[str]) -> None:
    assert set(mined("two stop signs near the fire hydrant, and a large red frisbee", form=form)) == expected


def test_a_concept_counts_once_a_picture_and_a_plural_as_its_singular() -> None:
    pictures = [["a dog", "two dogs and a dog"], ["geese", "a goose beside knives"], ["the dogs"]]
    found = {concept.name: concept.pictures for concept in ConceptMiner()(pictures)}
    assert found == {"dog": 2, "goose": 1, "knife": 1}


def test_one_pictures_nouns_come_in_the_order_of_its_captions() -> None:
    miner = ConceptMiner(form="nouns")
    captions = ["two dogs beside a stop sign", "a dog with leaves", "a photo of a sign"]
    assert miner.nouns(captions) == ["dog", "sign", "leaf"]
    assert miner.nouns([]) == []
    assert set(ConceptMiner(form="compounds").nouns(captions)) == set(mined(" . ".join(captions)))
    with pytest.raises(InputError, match="Unknown tagger"):
        ConceptMiner(tagger="nltk").nouns(["a dog"])


def test_a_plural_of_several_words_is_of_the_one_that_is_met_in_the_singular() -> None:
    assert mined("leaves on the grass", "a green leaf", "the leaf") == {"leaf": 3, "grass": 1}
    assert "glass" in mined("two glasses", "a glass of water")
    assert mined("leaves") == {"leaf": 1}
    assert mined("a woman in pants and jeans") == {"woman": 1, "pants": 1, "jeans": 1}
    assert singulars("scissors") == ("scissors",)


def test_what_names_no_object_is_left_out() -> None:
    assert mined("a photo of a group of people on top of a hill in the background") == {"people": 1, "hill": 1}


def test_verbs_adjectives_and_owners_are_no_objects() -> None:
    assert mined("a man riding a wave on a surfboard") == {"man": 1, "wave": 1, "surfboard": 1}
    assert mined("a man's surfboard") == {"man": 1, "surfboard": 1}
    assert mined("A DOG ON A SKATEBOARD") == {"dog": 1, "skateboard": 1}


@pytest.mark.parametrize(
    "caption", ["", "   ", "🍾🎉", "犬がフリスビーで遊ぶ", "!!! ... ???", "12 34", "running quickly", "w" * 5000]
)
def test_a_caption_without_an_english_noun_gives_nothing(caption: str) -> None:
    start = time.perf_counter()
    assert mined(caption) == {}
    assert mined(caption, "a dog 🐕 and a кошка") == {"dog": 1}
    assert time.perf_counter() - start < 20


def test_a_caption_of_ten_thousand_words_is_read() -> None:
    assert mined("a dog chases the cat " * 2000) == {"cat": 1, "dog": 1}


def test_rare_concepts_are_dropped_and_the_order_is_that_of_counts_then_names() -> None:
    found = ConceptMiner()([["a cat and a dog"], ["a dog"], ["a cat"], ["a bird"]], min_count=2)
    assert found == [Concept("cat", 2), Concept("dog", 2)]


def test_the_order_of_pictures_changes_nothing() -> None:
    captions = [
        [f"a {one} near leaves", f"the {two}"] for one, two in [("dog", "leaf"), ("cat", "dogs"), ("bus", "cat")]
    ]
    assert ConceptMiner()(captions) == ConceptMiner()(captions[::-1])


def test_the_concepts_of_the_world_are_its_things_and_grounds() -> None:
    world = World("train", count=150)
    mined = ConceptMiner()((world[index].captions for index in range(len(world))), min_count=3)
    found = {concept.name for concept in mined}
    names = {word for entry in (*SHAPES.values(), *GROUNDS.values()) for word in entry} | {*SHAPES, *GROUNDS}
    assert len(found & names) >= 50
    assert {"star", "umbrella", "key", "sand", "gravel"} <= found


@pytest.mark.parametrize("name", ["concepts.txt", "concepts.csv"])
def test_a_list_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    concepts = [Concept("stop sign", 7), Concept("dog", 3)]
    write_concepts(concepts, tmp_path / name)
    assert read_concepts(tmp_path / name) == ["stop sign", "dog"]
    if name.endswith("txt"):
        assert Vocabulary.from_file(tmp_path / name).names == ("stop sign", "dog")


def test_published_pools_are_read_up_to_the_comma_and_each_name_once(tmp_path: Path) -> None:
    (tmp_path / "pool.txt").write_text("# nouns\nperson,12,0.3\n\nstop sign, 5\nperson\n", "utf-8")
    assert read_concepts(tmp_path / "pool.txt") == ["person", "stop sign"]
    (tmp_path / "empty.txt").write_text("\n#\n", "utf-8")
    for missing in ("empty.txt", "none.txt"):
        with pytest.raises(DataError, match=missing):
            read_concepts(tmp_path / missing)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="nouns, compounds, phrases"):
        ConceptMiner(form="words")
    with pytest.raises(InputError, match="min_count is 0"):
        ConceptMiner()([], min_count=0)
    with pytest.raises(InputError, match="Unknown tagger 'nltk'"):
        get_tagger("nltk")


def test_a_pipeline_of_spacy_tags_too(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy", reason="spaCy is an optional package, and is not installed")
    pipeline = spacy.blank("en")
    ruler = pipeline.add_pipe("attribute_ruler")
    for word, lemma, kind in (("dogs", "dog", "NOUN"), ("red", "red", "ADJ"), ("frisbee", "frisbee", "NOUN")):
        ruler.add([[{"LOWER": word}]], {"POS": kind, "LEMMA": lemma})
    pipeline.to_disk(tmp_path / "small")
    found = ConceptMiner(form="phrases", tagger=f"spacy:{tmp_path / 'small'}")([["Dogs catch a red frisbee"]])
    assert {concept.name for concept in found} == {"dog", "frisbee", "red frisbee"}
    with pytest.raises(InputError, match="spacy download"):
        get_tagger("spacy:no_such_model")


def test_a_list_with_counts_is_read_as_words(tmp_path: Path) -> None:
    path = tmp_path / "concepts.csv"
    write_concepts([Concept("moon", 11), Concept("red key", 9)], path)
    assert read_concepts(path) == ["moon", "red key"]
    assert Vocabulary.from_file(path).names == ("moon", "red key")


def test_a_list_of_nouns_is_no_name() -> None:
    found = ConceptMiner()([["dog " * 10_000]])
    assert max(len(concept.name.split()) for concept in found) <= LONGEST
