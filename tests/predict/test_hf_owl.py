"""OWL-ViT and OWLv2 of transformers, small and random, saved as folders: their answers against transformers' own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    CLIPTokenizer,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    Owlv2Processor,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessor,
    OwlViTProcessor,
)

from closeup.data.record import Description, Record
from closeup.data.world import World
from closeup.errors import ModelError
from closeup.predict import evaluate_described_objects, open_caption_detector
from tiny_towers import randomise

PARTS: dict[str, tuple[Any, Any, Any, Any]] = {
    "owlvit": (OwlViTConfig, OwlViTForObjectDetection, OwlViTImageProcessor, OwlViTProcessor),
    "owlv2": (Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor, Owlv2Processor),
}
SIZE = {"height": 32, "width": 32}
ASKED = [("red cup", "blue cup", "red cap"), ("big star", "tiny star")]
LONG = "a rather long caption"


def saved(kind: str, folder: Path) -> Path:
    """Save a small random model that reads letters, each of them a token."""
    config, model, images, processor = PARTS[kind]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["!", *letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"pad_token_id": 0, "bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1}
    text, vision = {**sizes, **ends, "vocab_size": len(words)}, {**sizes, "image_size": 32, "patch_size": 8}
    made = model(config(text_config=text, vision_config=vision, projection_dim=16))
    randomise(made, 0)
    made.save_pretrained(folder)
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token="!", model_max_length=16
    )
    processor(images(size=SIZE), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["owlvit", "owlv2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(request.param, tmp_path_factory.mktemp("owl") / request.param)


def test_answers_are_those_of_the_whole_model(folder: Path) -> None:
    """Asked for several lists at once, it says of each what transformers' own call says of it alone."""
    record = World("test", count=1, size=(40, 70))[0]
    answers = open_caption_detector(f"hf:{folder}", device="cpu").ask("one", record.load(), ASKED)
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    _, model, _, processor = PARTS[kind]
    whole, prepare = model.from_pretrained(folder).eval(), processor.from_pretrained(folder)
    for answer, captions in zip(answers, ASKED, strict=True):
        assert answer is not None
        inputs = prepare(text=[list(captions)], images=record.load(), return_tensors="pt")
        with torch.no_grad():
            out = whole(**inputs)
        (found,) = prepare.post_process_grounded_object_detection(out, threshold=0.0, target_sizes=[(40, 70)])
        torch.testing.assert_close(answer.boxes, found["boxes"], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(answer.best(), found["scores"], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(answer.scores, out.logits[0].sigmoid(), atol=1e-5, rtol=1e-4)
        assert answer.captions == captions
        assert float(answer.scores.std(dim=1).max()) > 1e-3  # captions are told apart


def test_a_caption_beyond_16_tokens_is_not_asked_for(folder: Path) -> None:
    shown = World("test", count=1, size=(40, 70))[0]
    assert shown.boxes is not None
    longest = "abcdefghijklmn"  # 14 letters, and the two ends
    said = (Description("red cup", ("blue cup", longest)), Description("red cap", (LONG, "blue cup")))
    record = Record("one", shown.load(), (40, 70), boxes=shown.boxes[:2], descriptions=said)

    class One:
        names = ("thing",)
        things = (True,)

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int, /) -> Record:
            return record

    detector = open_caption_detector(f"hf:{folder}", device="cpu")
    report = evaluate_described_objects(detector, One(), negatives=2, limit_found=5)
    assert [answer.captions[0] for answer in report.answers] == ["red cup"]
    assert len(report.answers[0].boxes) == 5
    assert report.skipped == 1
    assert report.summary()["unasked"] == 1
    assert report.ranks().ranks.tolist()[1] == 3
    made = report.provenance
    assert (made.model, made.image_size, made.words) == (f"hf:{folder}", (32, 32), 4)
    assert made.region_encoder in PARTS
    assert detector.ask("two", record.load(), [("red", LONG)]) == [None]


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match=r"kind 'bert'.*Give an OWL-ViT"):
        open_caption_detector(f"hf:{tmp_path}", device="cpu")
    with pytest.raises(ModelError, match="could not be fetched or made"):
        open_caption_detector(f"hf:{tmp_path / 'nowhere'}", device="cpu")
