from __future__ import annotations

from typing import Literal

import pytest
import torch
import torch.nn.functional as F

from closeup._types import IGNORE
from closeup.heads.context_decoder import ContextDecoder
from closeup.heads.denseclip import pixel_loss, score_map
from closeup.heads.denseclip_config import DenseClipConfig
from closeup.heads.prompting import Prompting, memory
from closeup.heads.pyramid import VitPyramid
from closeup.models.routes import get_route
from closeup.models.vit import VitTower
from goldens import Golden, assert_close, cases
from tiny_clips import official_vit

DECODER_KEYS = {
    "memory_proj.": "memory.",
    "text_proj.": "queries.",
    "out_proj.": "answer.",
    "decoder.": "layers.",
    ".self_attn.": ".self_attention.",
    ".cross_attn.": ".cross_attention.",
    ".q_proj.": ".query.",
    ".k_proj.": ".key.",
    ".v_proj.": ".value.",
    ".proj.": ".out.",
    ".norm1.": ".norms.0.",
    ".norm2.": ".norms.1.",
    ".norm3.": ".norms.2.",
    ".mlp.": ".feed_forward.",
}


def decoder_of(golden: Golden) -> ContextDecoder:
    config = golden.config["context_decoder"]
    decoder = ContextDecoder(
        config["visual_dim"],
        config["visual_dim"],
        width=config["transformer_width"],
        heads=config["transformer_heads"],
        layers=config["transformer_layers"],
        dropout=config["dropout"],
    )
    state = {}
    for name, tensor in golden.weights("w/context_decoder.").items():
        for theirs, ours in DECODER_KEYS.items():
            name = name.replace(theirs, ours, 1) if name.startswith(theirs) or theirs[0] == "." else name
        state[name] = tensor
    decoder.load_state_dict(state)
    return decoder.eval()


@pytest.mark.parametrize("golden", cases("denseclip_text"))
@torch.no_grad()
def test_context_decoder_score_map_and_where_it_joins_are_the_official(golden: Golden) -> None:
    before, pooled, dense = golden["out/text_embeddings_before"], golden["in/z_global"], golden["in/z_map"]
    seen = memory(pooled, dense)
    assert_close(seen, golden["out/visual_context"])
    words = before.expand(len(pooled), -1, -1)
    answer = decoder_of(golden)(words, seen)
    assert_close(answer, golden["out/text_diff"])
    moved = words + golden["w/gamma"] * answer
    assert_close(moved, golden["out/text_embeddings_after"])
    scores = score_map(dense, moved)
    assert_close(scores, golden["out/score_map"])
    level = golden[f"in/c{golden.config['score_concat_index'] + 2}"]
    assert_close(torch.cat([level, scores], dim=1), golden["out/concat"])


@pytest.mark.parametrize("golden", cases("denseclip_text"))
def test_auxiliary_loss_and_its_gradient_are_the_official(golden: Golden) -> None:
    config = golden.config
    prompting = Prompting(
        golden["out/text_embeddings_before"][0],
        None,
        DenseClipConfig(
            contexts=0,
            decoder_width=config["context_decoder"]["transformer_width"],
            decoder_heads=config["context_decoder"]["transformer_heads"],
            decoder_layers=config["context_decoder"]["transformer_layers"],
        ),
    )
    prompting.decoder.load_state_dict(decoder_of(golden).state_dict())
    prompting.gamma.data.copy_(golden["w/gamma"])
    prompting.eval()
    scores = score_map(golden["in/z_map"], prompting(golden["in/z_global"], golden["in/z_map"]))
    labels = golden["in/labels"][:, 0]
    labels = torch.where(labels == 255, IGNORE, labels)
    weight, divided = golden.meta["constants"]["loss_weight"], scores / config["tau"]
    loss = weight * pixel_loss(divided, labels, labels.numel())
    assert_close(loss, golden["out/aux_loss_weighted"])
    loss.backward()
    assert prompting.gamma.grad is not None
    assert_close(prompting.gamma.grad, golden["out/aux_grad_gamma"])
    # Over the labelled pixels alone it is torch's own mean.
    mean = F.cross_entropy(F.interpolate(divided, labels.shape[1:], mode="bilinear"), labels, ignore_index=IGNORE)
    torch.testing.assert_close(pixel_loss(divided, labels, (labels != IGNORE).sum()), mean)


@pytest.mark.parametrize("golden", cases("denseclip_vit"))
@pytest.mark.parametrize(("prefix", "count"), [("out/", "double"), ("out/single_cls/", "single")])
@torch.no_grad()
def test_the_reading_of_a_vit_and_its_pyramid_are_the_official(
    golden: Golden, prefix: str, count: Literal["single", "double"]
) -> None:
    pyramid = VitPyramid(golden.config["model"]["width"], norms=True).eval()
    places = {"fpn1.0": "norms.0", "fpn2.0": "norms.1", "fpn3": "norms.2", "fpn4.0": "norms.3"}
    places |= {f"fpn1.{step}": f"fourfold.{step - 1}" for step in (1, 2, 4)} | {"fpn2.1": "twofold"}
    state = {
        f"{ours}.{name.removeprefix(theirs + '.')}": tensor
        for theirs, ours in places.items()
        for name, tensor in golden.weights().items()
        if name.startswith(theirs + ".")
    }
    pyramid.load_state_dict(state)
    config = golden.config["model"]
    tower = VitTower(
        official_vit(golden, config), dim=config["output_dim"], positions="bilinear", class_embedding=count
    )
    for name in ("native", "second"):
        pictures = golden[f"in/img_{name}"]
        found = tower.read(pictures, config["out_indices"], get_route("attention"))
        assert found.pooled is not None
        assert found.dense is not None
        assert_close(found.pooled, golden[f"{prefix}{name}_global"])
        assert_close(found.dense, golden[f"{prefix}{name}_map"])
        for index, level in enumerate(pyramid(found.levels), start=1):
            if f"{prefix}{name}_level{index}" in golden:
                assert_close(level, golden[f"{prefix}{name}_level{index}"])
