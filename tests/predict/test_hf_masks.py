"""Checkpoints of transformers, small and random, saved as folders: their masks against transformers' own calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import (
    CLIPTokenizer,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    MaskFormerImageProcessor,
    OneFormerConfig,
    OneFormerForUniversalSegmentation,
    OneFormerImageProcessor,
    OneFormerProcessor,
    SamConfig,
    SamImageProcessor,
    SamModel,
    pipeline,
)

from closeup.data.record import Record
from closeup.data.world import World
from closeup.errors import InputError
from closeup.predict.mask_sources import open_masks

SWIN = {
    "model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1], "window_size": 2,
    "image_size": 32, "patch_size": 4,
}  # fmt: skip
STAGES = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
DETR = {
    "model_type": "detr", "d_model": 16, "num_queries": 6, "decoder_layers": 1, "decoder_attention_heads": 2,
    "decoder_ffn_dim": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "hidden_dim": 32, "encoder_feedforward_dim": 16, "encoder_layers": 1, "decoder_layers": 2,
    "num_attention_heads": 2, "dim_feedforward": 16, "num_queries": 6, "num_labels": 3,
}  # fmt: skip
CANVAS: dict[str, Any] = {"size": {"shortest_edge": 32, "longest_edge": 64}}
ANYTHING = "points_per_crop=4&pred_iou_thresh=-10&stability_score_thresh=0"


def record() -> Record:
    return World("test", count=1, size=(40, 70))[0]


def mask2former(folder: Path) -> Path:
    torch.manual_seed(0)
    config = Mask2FormerConfig(backbone_config={**SWIN, **STAGES}, feature_size=32, mask_feature_size=32, **SMALL)
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    Mask2FormerImageProcessor(**CANVAS).save_pretrained(folder)
    return folder


def maskformer(folder: Path) -> Path:
    torch.manual_seed(0)
    config = MaskFormerConfig(
        backbone_config=SWIN, fpn_feature_size=32, mask_feature_size=32, decoder_config=DETR, num_labels=3
    )
    MaskFormerForInstanceSegmentation(config).save_pretrained(folder)
    # A canvas that is larger than any picture on it.
    MaskFormerImageProcessor(**CANVAS, pad_size={"height": 96, "width": 96}).save_pretrained(folder)
    return folder


def sam(folder: Path) -> Path:
    torch.manual_seed(0)
    vision = {
        "hidden_size": 16, "output_channels": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32,
        "patch_size": 8, "mlp_dim": 16, "num_pos_feats": 4, "window_size": 2, "global_attn_indexes": [0],
    }  # fmt: skip
    prompt = {"hidden_size": 8, "image_size": 32, "patch_size": 8, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 8, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "iou_head_depth": 2,
        "iou_head_hidden_dim": 8,
    }  # fmt: skip
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    SamModel(config).save_pretrained(folder)
    side = {"height": 32, "width": 32}
    SamImageProcessor(size={"longest_edge": 32}, pad_size=side).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("threshold", [0.5, 0.52])
def test_mask2former_gives_a_mask_a_query(tmp_path: Path, threshold: float) -> None:
    folder, shown = mask2former(tmp_path / "model"), record()
    found = open_masks(f"hf:{folder}?threshold={threshold}", device="cpu")(shown, shown.load())
    model = Mask2FormerForUniversalSegmentation.from_pretrained(folder).eval()
    inputs = Mask2FormerImageProcessor.from_pretrained(folder)(images=shown.load(), return_tensors="pt")
    with torch.no_grad():
        out = model(**inputs)
    fine = F.interpolate(out.masks_queries_logits, inputs["pixel_values"].shape[2:], mode="bilinear")
    planes = F.interpolate(fine, (40, 70), mode="bilinear")[0].sigmoid() > threshold
    kept = planes.flatten(1).any(dim=1)
    assert torch.equal(found.masks, planes[kept])
    assert found.scores is not None
    torch.testing.assert_close(found.scores, out.class_queries_logits.softmax(-1)[0, kept, :3].sum(-1))


def test_maskformer_and_the_padding_of_its_canvas(tmp_path: Path) -> None:
    folder, shown = maskformer(tmp_path / "model"), record()
    found = open_masks(f"hf:{folder}", device="cpu")(shown, shown.load())
    model = MaskFormerForInstanceSegmentation.from_pretrained(folder).eval()
    inputs = MaskFormerImageProcessor.from_pretrained(folder)(images=shown.load(), return_tensors="pt")
    assert tuple(inputs["pixel_values"].shape[2:]) == (96, 96)
    height, width = int(inputs["pixel_mask"][0, :, 0].sum()), int(inputs["pixel_mask"][0, 0].sum())
    assert (height, width) != (96, 96)
    with torch.no_grad():
        logits = model(**inputs).masks_queries_logits
    fine = F.interpolate(logits, (96, 96), mode="bilinear")[..., :height, :width]
    planes = F.interpolate(fine, (40, 70), mode="bilinear")[0].sigmoid() > 0.5
    assert torch.equal(found.masks, planes[planes.flatten(1).any(dim=1)])


def oneformer(folder: Path) -> Path:
    torch.manual_seed(0)
    folder.mkdir()
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "classes.json").write_text(json.dumps({str(n): {"isthing": 1, "name": f"thing {n}"} for n in range(3)}))
    config = OneFormerConfig(
        backbone_config={**SWIN, **STAGES},
        conv_dim=32,
        mask_dim=32,
        task_seq_len=20,
        text_encoder_width=16,
        text_encoder_context_length=20,
        text_encoder_vocab_size=len(words),
        text_encoder_num_layers=1,
        query_dec_layers=1,
        is_training=False,
        **{**SMALL, "encoder_layers": 1},
    )
    OneFormerForUniversalSegmentation(config).save_pretrained(folder)
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    images = OneFormerImageProcessor(
        **CANVAS, repo_path=str(folder), class_info_file="classes.json", num_text=2, num_labels=3
    )
    OneFormerProcessor(images, tokenizer, max_seq_length=20, task_seq_length=20).save_pretrained(folder)
    return folder


def test_oneformer_is_told_its_task(tmp_path: Path) -> None:
    folder, shown = oneformer(tmp_path / "model"), record()
    found = open_masks(f"hf:{folder}?threshold=0.4", device="cpu")(shown, shown.load())
    assert len(found) > 0
    assert found.masks.shape[1:] == (40, 70)
    assert found.scores is not None
    assert bool(((found.scores > 0) & (found.scores < 1)).all())


def test_sams_masks_are_those_of_the_pipeline(tmp_path: Path) -> None:
    folder, shown = sam(tmp_path / "model"), record()
    found = open_masks(f"hf:{folder}?{ANYTHING}", device="cpu")(shown, shown.load())
    generate = pipeline("mask-generation", model=str(folder), device="cpu")
    out = generate(shown.load(), points_per_crop=4, pred_iou_thresh=-10, stability_score_thresh=0)
    planes = torch.from_numpy(np.stack([np.asarray(mask) for mask in out["masks"]])).bool()
    kept = planes.flatten(1).any(dim=1)
    assert len(found) > 0
    assert torch.equal(found.masks, planes[kept])
    assert found.scores is not None
    torch.testing.assert_close(found.scores, out["scores"][kept])
    # At SAM's own thresholds a random model is sure of nothing.
    assert open_masks(f"hf:{folder}?points_per_crop=4", device="cpu")(shown, shown.load()).masks.shape == (0, 40, 70)


def test_weights_make_the_fingerprint_and_options_are_checked(tmp_path: Path) -> None:
    one = open_masks(f"hf:{sam(tmp_path / 'one')}", device="cpu").fingerprint
    assert one == open_masks(f"hf:{sam(tmp_path / 'again')}", device="cpu").fingerprint
    assert one != open_masks(f"hf:{mask2former(tmp_path / 'two')}", device="cpu").fingerprint
    for options, told in (
        ("threshold=0.4", "threshold"),
        ("points_per_crop=0", "whole number, 1 or more"),
        ("points_per_crop=2.5", "whole number, 1 or more"),
        ("crops_n_layers=-1", "whole number, 0 or more"),
        ("pred_iou_thresh=high", "not a number"),
    ):
        with pytest.raises(InputError, match=told):
            open_masks(f"hf:{tmp_path / 'one'}?{options}", device="cpu")
