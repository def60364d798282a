"""FG-CLIP's official matcher checkpoints: key names, and which matching function has them.

Source: ``lorebianchi98/FG-CLIP`` ``checkpoints/*.pt`` and ``src/model.py``. Only linear matchers were published.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from closeup.errors import InputError, ModelError
from closeup.match.matcher import Matcher
from closeup.match.matchers import new_matcher
from closeup.models.checkpoint import mismatches

LAYER = re.compile(r"linear_layers\.([01])\.([01])\.(weight|bias)")
ATTENTION = {"cls_linear.": "token.", "attention_layers.0.": "attention."}
KINDS = {
    frozenset({"0.0"}): "linear-image",
    frozenset({"1.0"}): "linear-text",
    frozenset({"0.0", "1.0"}): "linear",
    frozenset({"0.0", "0.1", "1.0", "1.1"}): "mlp",
}
"""Which sides (0 regions, 1 texts) and layers there are."""


def from_official(state: Mapping[str, Tensor], source: str, *, heads: int | None = None) -> Matcher:
    """Return the matcher, in eval mode, whose official weights these are; it takes raw embeddings.

    ``heads`` is the number of an attention matcher's heads, which its weights do not tell (None: as ``new_matcher``).

    Raises:
        ModelError: the weights are of no matcher, or their shapes do not fit each other.
    """
    layers = {f"{found[1]}.{found[2]}" for name in state if (found := LAYER.fullmatch(name)) is not None}
    kind = "attention" if "cls_linear.weight" in state else KINDS.get(frozenset(layers))
    # Of a side's layers the first comes first by name, and its weight is hidden or dim x dim.
    first = min((name for name in state if name.endswith(".weight") and not name.startswith("attention")), default=None)
    if kind is None or first is None:
        raise ModelError(
            f"{source} is no matcher: it holds {', '.join(sorted(state)[:4])}, and FG-CLIP's hold "
            "linear_layers.0.0.weight and its like, or cls_linear.weight."
        )
    shape = tuple(state[first].shape)
    if len(shape) != 2 or 0 in shape:
        raise ModelError(f"{source}: {first} has the shape {shape}, and a matrix is wanted.")
    dim = shape[0] if kind == "attention" else shape[1]
    hidden = shape[0] if kind == "mlp" else None
    try:
        made = new_matcher(kind, dim, hidden=hidden, heads=heads, inputs="raw")
    except InputError as error:
        raise ModelError(f"{source}: {error}") from error
    translated = {_ours(name): tensor for name, tensor in state.items()}
    problems = mismatches(made.state_dict(), translated)
    if problems:
        raise ModelError(f"The weights in {source} are of no {made.kind} matcher: {'; '.join(problems[:3])}.")
    made.load_state_dict(translated)
    return made.eval()


def _ours(name: str) -> str:
    found = LAYER.fullmatch(name)
    if found is not None:  # every layer of ours is followed by a tanh or by nothing
        return f"{('image', 'text')[int(found[1])]}.{2 * int(found[2])}.{found[3]}"
    for theirs, ours in ATTENTION.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
