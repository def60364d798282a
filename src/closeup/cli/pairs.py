"""The verb ``pairs``: masks with their nouns, out of pictures with captions, to adapt a CLIP on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from closeup.cli.choices import Precision
from closeup.cli.fields import Flag, Maybe
from closeup.cli.files import check_folder, counted, save_picture
from closeup.cli.output import show, show_json, table
from closeup.data.pairs import PairFolder
from closeup.data.readable import open_train
from closeup.data.record import Reader
from closeup.data.write_pairs import PairWriter, PictureForm
from closeup.errors import CloseupError, DataError, InputError
from closeup.models import load
from closeup.predict.mask_sources import open_masks
from closeup.predict.pairs import Mined, PairPolicy, labelled_pairs, mine_pairs
from closeup.text.concepts import ConceptMiner, Form, read_concepts
from closeup.viz.pairs import pair_sheet

SHOWN = 20
"""Nouns that are listed on the terminal."""
SHEET = "pairs.png"


CAPTIONED = ("captions", "form", "tagger", "only", "least", "how", "model", "templates")
"""Options that are about captions and the CLIP that chooses."""


@dataclass(frozen=True)
class Options:
    """Mine mask-noun pairs: cut-out things with a word each, that a CLIP learns to read masked crops from.

    Of the masks that are proposed in a picture, the one that a CLIP finds most like a noun of the captions is the
    noun's (OVSeg, arXiv 2210.04150). Words then are as many as people write. Or the masks are those of a data set and
    their names the nouns, which is exacter and poorer in words.

        closeup pairs --images coco-captions:/data/coco --masks my-masks --model ViT-L-14/openai --out pairs/
        closeup pairs --images coco-captions:/data/coco --masks hf:facebook/sam-vit-base --captions 5 --out pairs/
        closeup pairs --images folder:photos?captions=sidecar --masks sam-masks/ --out pairs/
        closeup propose photos/ --out masks.json
        closeup pairs --images folder:photos?captions=sidecar --masks masks.json --out pairs/
        closeup pairs --images coco-panoptic:/data/coco --from truth --out pairs/
        closeup adapt maskadapt --images pairs:pairs/ --model ViT-L-14/openai --out my-clip

    The folder holds tar files that any WebDataset reader takes, each pair as a picture, its mask and a json; pairs.json
    with counts; and pairs.png, some pairs to look at. The masks are kept as they are: they are never read off a colour.
    """

    images: str
    """A data set, with captions or, for --from truth, with masks or label maps: "coco-captions:/data/coco"."""

    out: Path
    """The folder of pairs, a new one."""

    masks: Maybe[str] = None
    """Where masks are from: the folder or name of a trained proposer (closeup train masks); hf:NAME, a SAM,
    Mask2Former, MaskFormer or OneFormer of transformers by name or folder; a folder with a file of masks a photo (.npz,
    .json, or a folder of PNGs); a COCO file of all photos; "found", what closeup propose finds; or "truth", the data
    set's own. A proposer takes ?threshold=0.4."""

    origin: Annotated[Literal["captions", "truth"], arg(name="from")] = "captions"
    """What says the nouns: captions, each noun with the mask most like it, or the names of the data set's own masks."""

    captions: int = 1
    """Captions of a picture whose nouns are taken, the first ones: 1 or 5 in the paper."""

    form: Form = "nouns"
    """What a noun phrase gives: its last noun ("nouns"), also with the nouns before it ("compounds": stop sign), also
    with the adjectives before those ("phrases": red stop sign)."""

    tagger: str = "hanta"
    """What tells nouns from other words: "hanta", or "spacy:MODEL" for a spaCy pipeline that is installed."""

    only: Maybe[Path] = None
    """A file of the nouns that are taken, one a line, as closeup concepts writes it; all unless given."""

    least: float = -1.0
    """The least cosine between a noun and its mask; pairs below it are dropped."""

    how: Literal["masked-crop", "mask-prompt"] = "masked-crop"
    """How the CLIP looks at a mask; "mask-prompt" for one that has mask prompts."""

    model: str = "tiny"
    """The CLIP that chooses: a name as in "tiny" or "ViT-L-14/openai", or a folder of a model."""

    templates: str = "simple"
    """The sentences around a noun, a set such as "simple" or "vild-14"."""

    batch: int = 8
    """Cut-outs that are encoded at a time, in eights."""

    split: Maybe[str] = None
    """The split of a data set: train unless its line says otherwise."""

    limit: Maybe[int] = None
    """The most pictures, the first ones; all unless given."""

    format: PictureForm = "png"
    """How cut-outs are kept: "png" exactly, "jpg" for photographs in about a third of the space. Masks are exact."""

    shard: int = 1000
    """Pairs in a tar file, after which the run can be resumed."""

    resume: Flag = False
    """Go on with a run that was stopped, after its last whole tar file."""

    precision: Precision = "auto"
    """Arithmetic: "auto" is bf16 where the machine is faster at it and the model bears it."""

    device: str = "auto"
    """Where to compute: "auto", "cpu", "cuda", "cuda:1"."""

    json: Flag = False
    """Print one json document with counts and nouns."""


def run(options: Options) -> int:
    """Mine the pairs, write them, and tell what they are."""
    _check(options)
    reader = open_train(options.images, options.split)
    total = len(reader) if options.limit is None else min(options.limit, len(reader))
    miner = _Truth(reader) if options.origin == "truth" else _Captions(options, reader)
    settings = {"images": options.images, "split": options.split, "records": len(reader), **miner.settings}
    writer = PairWriter(options.out, settings, per_shard=options.shard, form=options.format, resume=options.resume)
    with writer, counted("pairing") as tell:
        for mined in miner.mine(writer.pictures, total):
            writer.add(mined.pairs, left_out=mined.left_out)
            tell(writer.pictures, total)
    counts, nouns = writer.counts, writer.nouns
    if not counts["pairs"]:
        raise DataError(
            f"No pairs: {counts['left_out']} of {counts['pictures']} pictures could not be used, and no other has a "
            "noun and a mask for it. Look at the captions and the masks, or lower --least."
        )
    sheet = save_picture(pair_sheet(PairFolder(options.out)), options.out / SHEET)
    _tell(options, counts, nouns, miner.settings, sheet)
    return 0


class _Truth:
    """Masks and names of the data set."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.settings: dict[str, Any] = {"from": "truth"}
        if not reader.names:
            raise DataError("--from truth: the data set names no masks. Give one with labelled masks or label maps.")

    def mine(self, start: int, stop: int) -> Iterator[Mined]:
        return labelled_pairs(self._reader, start=start, stop=stop)


class _Captions:
    """Nouns of captions, each with the mask that the CLIP chooses."""

    def __init__(self, options: Options, reader: Reader) -> None:
        if options.masks is None:
            raise InputError("--masks is missing: say where masks are from, or give --from truth.")
        if not any(_captions(reader, index) for index in range(min(len(reader), 100))):
            raise DataError(f"{options.images} has no captions. Give a data set that has them, or --from truth.")
        self._reader = reader
        self._policy = PairPolicy(
            captions=options.captions,
            least=options.least,
            how=options.how,
            templates=options.templates,
            only=None if options.only is None else frozenset(map(str.lower, read_concepts(options.only))),
            batch=options.batch,
        )
        self._miner = ConceptMiner(form=options.form, tagger=options.tagger)
        self._clip = load(options.model, device=options.device, precision=options.precision)
        self._source = open_masks(options.masks, device=options.device, precision=options.precision)
        self.settings: dict[str, Any] = {
            "from": "captions",
            "masks": {"name": self._source.name, "fingerprint": self._source.fingerprint},
            "model": {"name": self._clip.name, "fingerprint": self._clip.fingerprint},
            "captions": options.captions,
            "form": options.form,
            "tagger": options.tagger,
            "only": None if self._policy.only is None else sorted(self._policy.only),
            "least": options.least,
            "how": options.how,
            "templates": options.templates,
        }

    def mine(self, start: int, stop: int) -> Iterator[Mined]:
        return mine_pairs(self._reader, self._source, self._clip, self._miner, self._policy, start=start, stop=stop)


def _captions(reader: Reader, index: int) -> tuple[str, ...]:
    with contextlib.suppress(CloseupError):
        return reader[index].captions
    return ()


def _check(options: Options) -> None:
    check_folder(options.out)
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit {options.limit}: give 1 picture or more.")
    if options.origin == "truth" and options.masks is not None:
        raise InputError("--from truth takes the masks of the data set itself: drop --masks, or --from truth.")
    if options.origin == "truth":
        usual = {field.name: field.default for field in fields(options)}
        for name in CAPTIONED:
            if getattr(options, name) != usual[name]:
                raise InputError(f"--{name} is about nouns of captions, and --from truth takes names: drop either.")


def _tell(
    options: Options, counts: dict[str, int], nouns: dict[str, int], settings: dict[str, Any], sheet: Path
) -> None:
    data = f"pairs:{options.out}"
    if options.json:
        listed = [{"noun": noun, "pairs": pairs} for noun, pairs in nouns.items()]
        show_json({"data": data, **counts, "settings": settings, "nouns": listed, "sheet": sheet})
        return
    without, left_out = counts["without_pair"], counts["left_out"]
    show(
        table(["noun", "pairs"], list(nouns.items())[:SHOWN]),
        f"{counts['pairs']:,} pairs of {len(nouns):,} nouns from {counts['pictures']:,} pictures; "
        f"{without:,} without a pair, {left_out:,} left out.",
        f"Written: {options.out}; {sheet} shows some.",
        f'To adapt on them: closeup adapt maskadapt --images "{data}"',
    )
