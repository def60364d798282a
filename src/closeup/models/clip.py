"""A CLIP with its image tower opened: images and texts in, joint-space embeddings and maps out."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from closeup._types import DenseMap, Embeddings, ImageLike, Images
from closeup.errors import InputError, ModelError
from closeup.geometry import Placement
from closeup.models.encode_regions import BoxTable, MaskStack, check_batch_size, encode_regions
from closeup.models.families import build_tower
from closeup.models.mask_prompt import encode_prompted, kept_cells, needed_prompts
from closeup.models.mask_tokens import encode_mask_tokens
from closeup.models.precision import PARITY, bf16_is_fast, check_precision, parity
from closeup.models.preprocess import Preprocess, Size
from closeup.models.reading import Reading
from closeup.models.routes import Route, get_route
from closeup.models.token_tower import TokenTower
from closeup.models.tower import ImageTower
from closeup.models.windows import Window
from closeup.regions import CropPolicy

TokenIds = Int[Tensor, "texts context"]


@runtime_checkable
class Tokenizer(Protocol):
    """What open_clip's tokenizers do."""

    def __call__(self, texts: list[str], context_length: int | None = None) -> TokenIds:
        """Return one row of token ids per text, cut or padded to the context length (None: the model's own)."""
        ...


class Clip:
    """An open_clip model, its image tower readable as a dense map at any size.

    Images inside are normalised float tensors (``preprocess`` makes them); embeddings are float32.
    ``encode_image``, ``encode_dense``, ``encode_both``, ``features`` and ``encode_tokens`` are
    differentiable; ``encode_text`` and ``encode_regions`` are for inference. ``precision`` acts on images,
    while gradients are off and no autocast is on: a training loop's own is not overruled.

    Attributes:
        model: open_clip's module, whose weights these are.
        tower: The image tower of its family.
        config: What open_clip's ``open_clip_config.json`` holds: ``model_cfg`` and ``preprocess_cfg``.
        name: What the model was loaded as.
        image_preprocess: Size, mean, deviation and policy that the model was trained with.
        precision: ``auto``, ``fp32`` or ``bf16``.
    """

    def __init__(
        self,
        model: nn.Module,
        config: Mapping[str, Any],
        *,
        name: str = "unnamed",
        tokenizer: Callable[[], Tokenizer] | None = None,
        precision: str = "auto",
    ) -> None:
        check_precision(precision)
        self.model: Any = model  # its parts are reached by name, which nn.Module cannot type
        self.config = dict(config)
        self.name = name
        self.precision = precision
        visual: Any = model.visual
        self.tower: ImageTower = build_tower(visual, int(config["model_cfg"]["embed_dim"]))
        self.image_preprocess = Preprocess.from_config(self.tower.image_size, config.get("preprocess_cfg", {}))
        self._make_tokenizer = tokenizer
        self._tokenizer: Tokenizer | None = None
        self._parities: dict[torch.device, float] = {}
        self._fingerprints: dict[str, tuple[tuple[int, ...], str]] = {}

    def __repr__(self) -> str:
        """Name, family, and the numbers that matter."""
        height, width = self.image_size
        return f"Clip({self.name!r}, {self.tower.family}, dim={self.dim}, {height} x {width} px, patch={self.patch})"

    @property
    def dim(self) -> int:
        """Width of an image embedding: the dimensions of the joint space, unless details stand behind them."""
        return self.joint_dim

    @property
    def joint_dim(self) -> int:
        """Dimensions of the joint space, in which texts are; an image embedding has length one in these."""
        return self.tower.dim

    @property
    def image_size(self) -> Size:
        """Height and width that the model was trained at."""
        return self.tower.image_size

    @property
    def patch(self) -> int:
        """Pixels per cell of the dense map."""
        return self.tower.patch

    @property
    def blocks(self) -> int:
        """Blocks (stages, in convolutional towers) that ``features`` can return."""
        return self.tower.depth

    @property
    def logit_scale(self) -> float:
        """The learned factor on cosines, already out of the logarithm (100 for OpenAI's models)."""
        return float(self.model.logit_scale.detach().exp())

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean of each channel, pixels 0 to 1."""
        return self.image_preprocess.mean

    @property
    def std(self) -> tuple[float, float, float]:
        """Deviation of each channel, pixels 0 to 1."""
        return self.image_preprocess.std

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def tokenizer(self) -> Tokenizer:
        """open_clip's tokenizer, made on first use; ModelError where it needs files that cannot be had."""
        if self._tokenizer is None:
            if self._make_tokenizer is None:
                raise ModelError(f"The model {self.name!r} was made without a tokenizer, so it cannot read text.")
            self._tokenizer = self._make_tokenizer()
        return self._tokenizer

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all weights and of the model's configuration.

        Computed again after a weight was replaced or written to; writing through ``.data`` goes unseen.
        """
        return self._hashed("all", self.model.state_dict(), self.config.get("model_cfg"))

    @property
    def text_fingerprint(self) -> str:
        """SHA-256 of what text embeddings depend on: adapting the image tower alone leaves it as it is."""
        state = {name: tensor for name, tensor in self.model.state_dict().items() if not _is_beside_text(name)}
        config = self.config["model_cfg"]
        return self._hashed("text", state, {name: value for name, value in config.items() if name != "vision_cfg"})

    def _hashed(self, part: str, state: Mapping[str, Tensor], config: object) -> str:
        versions = tuple(number for tensor in state.values() for number in (tensor.data_ptr(), tensor._version))
        if part not in self._fingerprints or self._fingerprints[part][0] != versions:
            self._fingerprints[part] = versions, digest(state, config)
        return self._fingerprints[part][1]

    def to(self, device: torch.device | str) -> Clip:
        """Move the weights, in place."""
        self.model.to(device)
        return self

    def encode_image(self, images: Images, *, normalize: bool = False) -> Embeddings:
        """Return the embedding of whole images: open_clip's own at the native size, and defined at any other."""
        with self._cast():
            pooled = self.tower.pooled(self._ready(images, native=True))
        return _finished(pooled, normalize)

    def encode_masked(
        self, images: Images, masks: Bool[Tensor, "batch lines columns"], *, normalize: bool = False
    ) -> Embeddings:
        """Return the embedding of whole images of which only what their masks cover is seen.

        Mask prompts take the place of the patches that a mask has no pixel in (``models.mask_prompt``).

        Raises:
            InputError: the model has no mask prompts, or masks are not of the images' size.

        Source: OVSeg (arXiv 2210.04150).
        """
        prompts = needed_prompts(self)
        if masks.shape[1:] != images.shape[2:]:
            raise InputError(f"Masks of {tuple(masks.shape[1:])} for images of {tuple(images.shape[2:])} pixels.")
        ready = self._ready(images, native=True)
        rows, cols = self.tower.grid(ready)
        whole = rows * self.patch - masks.shape[1], cols * self.patch - masks.shape[2]
        kept = kept_cells(F.pad(masks.to(self.device), (0, whole[1], 0, whole[0])), self.patch)
        with self._cast():
            embedded = encode_prompted(self.tower, ready, kept, prompts)
        return _finished(embedded, normalize)

    def encode_mask_tokens(
        self, images: Images, cells: Sequence[Bool[Tensor, "_ rows cols"]], *, normalize: bool = False
    ) -> list[Float[Tensor, "_ dim"]]:
        """Return the embedding of every mask of whole images, one tensor an image, from one pass (``mask_tokens``).

        ``cells`` has one entry an image: which of the ``ceil(side / patch)`` cells a side each mask touches, as
        ``regions.masks_to_cells`` with the policy ``any`` tells.

        Raises:
            ModelError: the image embedding of the model is not that of a class token.
            InputError: not one entry an image, or cells that are not the image's.

        Source: ODISE (arXiv 2303.04803).
        """
        ready = self._ready(images, native=True)
        sides = tuple(-(-side // self.patch) for side in images.shape[2:])
        for index, planes in enumerate(cells):
            if tuple(planes.shape[1:]) != sides:
                raise InputError(f"Masks of {tuple(planes.shape[1:])} cells for image {index} of {sides} cells.")
        rows, cols = self.tower.grid(ready)  # fewer at a native size that the patch does not divide
        with self._cast():
            found = encode_mask_tokens(self.tower, ready, [planes[:, :rows, :cols].flatten(1) for planes in cells])
        return [_finished(each, normalize) for each in found]

    def encode_dense(
        self,
        images: Images,
        *,
        route: str | Route = "value",
        window: Window | None = None,
        normalize: bool = True,
    ) -> DenseMap:
        """Return the joint-space map at any height and width, ``ceil(side / patch)`` cells a side.

        Sides that the patch does not divide are padded right and below with zeros (the mean colour).
        ``route`` is how the last block is replaced; InputError for an unknown one. With a ``window`` (cells along
        a side, or "native" for the grid that the model was trained on) attention stays inside windows in every block
        (``windows.WindowedBlock``), and only class token and registers tell one window of another; InputError where
        the tower has no attention between cells.

        Source: CLIPSelf (arXiv 2310.01403), ``encode_dense``; MaskCLIP (arXiv 2112.01071).
        """
        with self._cast():
            maps = self.tower.dense(self._ready(images), get_route(route), window)
        return _finished(maps, normalize)

    def encode_both(
        self, images: Images, *, route: str | Route = "attention", normalize: bool = True
    ) -> tuple[Embeddings, DenseMap]:
        """Return the pooled embedding and the map from one pass, both through the same route.

        With the route ``attention`` they are ``encode_image`` and ``encode_dense``; but at a native size that the
        patch does not divide the map leaves out the pixels that ``encode_image`` does not see.
        """
        with self._cast():
            pooled, maps = self.tower.pooled_and_dense(self._ready(images, native=True), get_route(route))
        return _finished(pooled, normalize), _finished(maps, normalize)

    def encode_dense_and_keys(
        self, images: Images, *, route: str | Route = "value", normalize: bool = True
    ) -> tuple[DenseMap, Float[Tensor, "batch keys rows cols"]]:
        """Return the joint-space map and, for MaskCLIP's key smoothing, the keys of the last block; from one pass.

        Raises:
            InputError: the tower has no attention between cells.
        """
        if not isinstance(self.tower, TokenTower):
            raise InputError(f"The {self.tower.family} tower of {self.name!r} has no keys to smooth by. Choose a ViT.")
        with self._cast():
            maps, keys = self.tower.dense_and_keys(self._ready(images), get_route(route))
        return _finished(maps, normalize), _finished(keys, False)

    def features(self, images: Images, blocks: Sequence[int]) -> list[Float[Tensor, "batch _ _ _"]]:
        """Return the maps after the given blocks (0-based, negative from the end), before any head."""
        with self._cast():
            return [_finished(level, False) for level in self.tower.features(self._ready(images), blocks)]

    def features_and_dense(
        self, images: Images, blocks: Sequence[int], *, route: str | Route = "value", normalize: bool = True
    ) -> tuple[list[Float[Tensor, "batch _ _ _"]], DenseMap]:
        """Return the maps after the given blocks, and the joint-space map, from one pass.

        A ViT's last block, if asked for, is as the route leaves it.
        """
        with self._cast():
            levels, maps = self.tower.features_and_dense(self._ready(images), blocks, get_route(route))
        return [_finished(level, False) for level in levels], _finished(maps, normalize)

    def read(self, images: Images, blocks: Sequence[int], *, route: str | Route = "value") -> Reading:
        """Return the maps after the given blocks, the pooled embedding and the dense map, from one pass.

        Nothing is normalised. A ViT's last block is as the route leaves it.
        """
        with self._cast():
            found = self.tower.read(self._ready(images), blocks, get_route(route))
        pooled, dense = (None if part is None else _finished(part, False) for part in (found.pooled, found.dense))
        return Reading([_finished(level, False) for level in found.levels], pooled, dense)

    def encode_tokens(self, tokens: TokenIds, *, normalize: bool = True) -> Embeddings:
        """Return the embeddings of tokenised texts; differentiable, and under the caller's autocast if there is one."""
        return _finished(self.model.encode_text(tokens.to(self.device)), normalize)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str], *, normalize: bool = True, batch: int = 256) -> Embeddings:
        """Return one embedding per text; InputError for a single string in place of a list.

        In full precision whatever autocast is on around it: text banks are kept on disk for everyone.
        """
        if isinstance(texts, str):
            raise InputError(f"encode_text wants a list of texts, not the one text {texts!r}. Give [text].")
        for position, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"Text {position} is {text!r} ({type(text).__name__}). Give strings.")
        check_batch_size(batch)
        with torch.autocast(self.device.type, enabled=False):
            parts = [
                self.encode_tokens(self.tokenizer(list(texts[start : start + batch])), normalize=normalize)
                for start in range(0, len(texts), batch)
            ]
        return torch.cat(parts) if parts else torch.zeros(0, self.joint_dim, device=self.device)

    def preprocess(
        self, image: ImageLike, *, policy: str | None = None, size: int | Size | None = None
    ) -> tuple[Float[Tensor, "3 rows cols"], Placement]:
        """Return a normalised tensor (on the CPU) and where the original image lies on it.

        ``policy`` is one of ``preprocess.POLICIES`` (None: the one that the model was trained with), ``size``
        a side or ``(height, width)`` in pixels (None: the native size). InputError for an unknown policy.
        """
        chosen = self.image_preprocess.policy if policy is None else policy
        return self.image_preprocess(image, policy=chosen, size=size, patch=self.patch)

    @torch.no_grad()
    def encode_regions(
        self,
        images: Sequence[ImageLike] | ImageLike,
        *,
        boxes: Sequence[BoxTable] | BoxTable | None = None,
        masks: Sequence[MaskStack] | MaskStack | None = None,
        grid: tuple[int, int] | None = None,
        how: str = "dense",
        route: str | Route = "value",
        size: int | Size | None = None,
        crop: CropPolicy | None = None,
        batch: int = 8,
        normalize: bool = True,
    ) -> list[Embeddings]:
        """Return one embedding per region, one tensor per image, in the joint space; L2-normalised unless told not to.

        See ``encode_regions.encode_regions``, which this calls with the model's own settings.
        """
        return encode_regions(
            self,
            images,
            boxes=boxes,
            masks=masks,
            grid=grid,
            how=how,
            route=get_route(route),
            size=size,
            crop=crop,
            batch=batch,
            normalize=normalize,
        )

    def _ready(self, images: Images, *, native: bool = False) -> Float[Tensor, "batch 3 rows cols"]:
        """Pad images to whole patches; with ``native``, as open_clip does, not those of the native size."""
        _check_images(images)
        height, width = images.shape[-2:]
        images = images.to(self.device)
        if native and (height, width) == self.image_size:
            return images
        return F.pad(images, (0, -width % self.patch, 0, -height % self.patch))

    @contextlib.contextmanager
    def _cast(self) -> Iterator[None]:
        # On the meta device there are shapes alone, and no autocast to ask for.
        settled = torch.is_grad_enabled() or self.device.type == "meta" or torch.is_autocast_enabled(self.device.type)
        if settled or not self._uses_bf16():
            yield
            return
        with torch.autocast(self.device.type, torch.bfloat16):
            yield

    def _uses_bf16(self) -> bool:
        if self.precision != "auto":
            return self.precision == "bf16"
        if not bf16_is_fast(self.device):
            return False
        device = self.device
        if device not in self._parities:
            self._parities[device] = parity(self.tower, device)
        return self._parities[device] >= PARITY


def _is_beside_text(name: str) -> bool:
    return name.startswith("visual.") or name in ("logit_scale", "logit_bias")


def _check_images(images: object) -> None:
    if not isinstance(images, Tensor):
        raise InputError(f"Images are a tensor that preprocess made, not {type(images).__name__}. Use preprocess.")
    if not images.is_floating_point() or images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise InputError(
            f"Images are a float tensor (batch, 3, height, width), not {images.dtype} of {tuple(images.shape)}. "
            "Use preprocess, and torch.stack or image[None]."
        )


def _finished(embeddings: Tensor, normalize: bool) -> Tensor:
    """Leave half precision behind, and L2-normalise over the second axis if wanted."""
    if embeddings.dtype in (torch.bfloat16, torch.float16):
        embeddings = embeddings.float()
    return F.normalize(embeddings, dim=1) if normalize else embeddings


def digest(state: Mapping[str, Tensor], config: object) -> str:
    """Return the SHA-256 of weights and of a configuration."""
    hashed = hashlib.sha256(repr(config).encode())
    for name, tensor in sorted(state.items()):
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hashed.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return hashed.hexdigest()
