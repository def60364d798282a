"""Small random CLIPs with every kind of text tower that open_clip has, each with a tokenizer of its kind."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from open_clip import CLIP, CustomTextCLIP, SimpleTokenizer
from open_clip.tokenizer import HFTokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

from closeup.models.clip import Clip
from tiny_clips import TEXT, VISION, vit_config
from tiny_towers import randomise

_SENTENCE = "a photo of an old dog cat tree traffic light house river boat red blue green very small big stone sky 7"
WORDS = tuple(_SENTENCE.split())
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
SMALL = {"vocab_size": len(SPECIAL) + len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 24, "max_position_embeddings": 40, "pad_token_id": 0}  # fmt: skip
M2M = {"vocab_size": SMALL["vocab_size"], "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2,
       "encoder_ffn_dim": 24, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 24,
       "pad_token_id": 0, "max_position_embeddings": 40}  # fmt: skip
MT5 = {"vocab_size": SMALL["vocab_size"], "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2,
       "pad_token_id": 0}  # fmt: skip
LAST: dict[str, Any] = {"no_causal_mask": True, "pool_type": "last"}
HUGGING_FACE: dict[str, tuple[transformers.PreTrainedConfig, str]] = {
    "roberta": (transformers.RobertaConfig(**SMALL), "mean_pooler"),
    "xlm-roberta": (transformers.XLMRobertaConfig(**SMALL), "mean_pooler"),
    "bert": (transformers.BertConfig(**SMALL), "cls_pooler"),
    "nllb": (transformers.M2M100Config(**M2M), "cls_pooler"),
    "mt5": (transformers.MT5Config(**MT5), "mean_pooler"),
}


def word_tokenizer(folder: Path, form: str, pad: str = "<pad>", strip_sep_token: bool = False) -> HFTokenizer:
    """Return a tokenizer of whole words, 16 a text, that puts special tokens around a text as ``form`` says."""
    vocabulary = {word: place for place, word in enumerate((*SPECIAL, *WORDS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    around = [(name, vocabulary[name]) for name in SPECIAL]
    words.post_processor = processors.TemplateProcessing(single=form, special_tokens=around)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token=pad, sep_token="</s>")
    fast.save_pretrained(str(folder))
    return HFTokenizer(str(folder), context_length=16, strip_sep_token=strip_sep_token)


def text_clip(make: Callable[..., nn.Module], text: dict[str, Any], tokenizer: Callable[[], Any]) -> Clip:
    model = randomise(make(24, dict(VISION), text))
    return Clip(model, {"model_cfg": vit_config(), "preprocess_cfg": {}}, name="tiny", tokenizer=tokenizer)


def _byte_pairs(make: Callable[..., nn.Module], text: dict[str, Any], folder: Path) -> Clip:
    whole = {**TEXT, "layers": 2, **text}
    return text_clip(make, whole, partial(SimpleTokenizer, context_length=whole["context_length"]))


def _words(
    make: Callable[..., nn.Module],
    text: dict[str, Any],
    folder: Path,
    form: str = "<s> $A </s>",
    tokenizer: Callable[..., HFTokenizer] = word_tokenizer,
) -> Clip:
    sizes = {"context_length": 16, "vocab_size": SMALL["vocab_size"], "width": 16, "heads": 2, "layers": 2}
    return text_clip(make, sizes | text, partial(tokenizer, folder, form))


def _hugging_face(architecture: str, folder: Path) -> Clip:
    config, pooler = HUGGING_FACE[architecture]
    config.save_pretrained(folder)
    text = {"hf_model_name": str(folder), "hf_model_pretrained": False, "hf_pooler_type": pooler, "hf_proj_type": "mlp"}
    form = "$A </s>" if architecture == "mt5" else "<s> $A </s>"
    return text_clip(CustomTextCLIP, text, partial(word_tokenizer, folder, form))


TEXT_TOWERS: dict[str, Callable[[Path], Clip]] = {
    "built-in": partial(_byte_pairs, CLIP, {}),
    "custom": partial(_byte_pairs, CustomTextCLIP, {}),
    "mobile": partial(_byte_pairs, CustomTextCLIP, {"no_causal_mask": True, "context_length": 20}),
    "coca": partial(_byte_pairs, CustomTextCLIP, {"embed_cls": True, "context_length": 20}),
    "first": partial(_byte_pairs, CustomTextCLIP, {"no_causal_mask": True, "pool_type": "first", "context_length": 20}),
    "siglip": partial(
        _words,
        CustomTextCLIP,
        {**LAST, "proj_bias": True},
        form="$A </s>",
        tokenizer=partial(word_tokenizer, pad="</s>"),
    ),
    "siglip-i18n": partial(_words, CustomTextCLIP, {**LAST, "proj_type": "none", "width": 24}, form="$A </s>"),
    "clipa": partial(_words, CLIP, LAST, tokenizer=partial(word_tokenizer, strip_sep_token=True)),
    "worldwide": partial(_words, CLIP, {"pool_type": "eos", "eos_id": 2}),
    **{name: partial(_hugging_face, name) for name in HUGGING_FACE},
}
"""The kinds by name; each takes an empty folder for the files of its tokenizer and of its configuration."""
