"""The part ``finegrained`` of the verb ``adapt``: a matcher on a frozen CLIP learns what CLIP's cosine overlooks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from closeup.cli.adapt_options import NO_REPORT
from closeup.cli.choices import MatcherKind
from closeup.cli.evaluate_finegrained import TIE_RULE, rank_lines
from closeup.cli.fields import Flag, Maybe
from closeup.cli.files import check_folder, counted
from closeup.cli.output import show, show_json
from closeup.data.benchmarks import open_benchmarks
from closeup.data.fgovd import BENCHMARKS
from closeup.data.record import Reader
from closeup.errors import DataError, InputError
from closeup.match import load_matcher
from closeup.match.matcher import Inputs, Normalisation
from closeup.models import load
from closeup.predict.benchmarks_report import BenchmarksReport
from closeup.predict.evaluate_benchmarks import evaluate_benchmarks, negatives_of
from closeup.recipes.run_finegrained import MatcherTraining, held_line, is_begun, train_matcher
from closeup.recipes.runs import read_card, run_folder, write_card

LIMIT = 200
"""Records of a report, at most."""

CONFIG = (
    "kind",
    "hidden",
    "inputs",
    "objective",
    "normalisation",
    "keep",
    "margin",
    "pair_margin",
    "sharpness",
    "wrong",
    "enlarge",
    "how",
    "size",
    "levels",
)
TRAINING = ("steps", "rate", "batch_size", "seed", "precision", "save_every")


@dataclass(frozen=True, kw_only=True)
class FineGrainedOptions:
    """Teach a matcher to tell details apart that a CLIP's cosine overlooks (FG-CLIP, CBMI 2024).

    The CLIP stays as it is. A matcher is a small function that scores embeddings of regions against those of captions.
    It learns twice: from whole pictures and their captions, what belongs together (the warm-up); then from regions,
    each with its right caption and captions that are wrong in a detail, to put the right one first. Embeddings are
    computed once and kept. The weights of the best rank on held-out regions are saved; it ends by telling that rank,
    and the cosine's.

        closeup adapt finegrained --regions "world?negatives=1_attributes&count=2000" --pairs world?count=2000
            --preset tiny --out my-matcher
        closeup adapt finegrained --regions "fgovd:FG-OVD/training_sets?split=1_attributes&images=/data/coco"
            --pairs karpathy:/data/coco?split=train --model ViT-B-16/openai --out my-matcher
        closeup adapt finegrained --regions ... --pairs ... --preset keep --out gains-detail-keeps-retrieval
        closeup evaluate finegrained --data world --matcher my-matcher
        closeup detect photo.jpg --matcher my-matcher --words "a red mug, a blue mug" --out found/

    The log, the embeddings and the state to resume from lie beside it in a folder of the same name with -run added.
    """

    regions: str
    """Described regions with wrong captions, at their split train unless the line says otherwise:
    "world?negatives=1_attributes&count=5000", or an FG-OVD file as in
    "fgovd:/data/fgovd/training_sets?split=1_attributes" (closeup negatives makes such files of any captions)."""

    out: Path
    """The folder of the finished matcher."""

    pairs: Maybe[str] = None
    """Pictures with captions, for the warm-up and for --keep: "karpathy:/data/coco?split=train", "world?count=5000"."""

    held: Maybe[str] = None
    """Regions that the best weights are chosen on; unless given the split val of --regions, or for FG-OVD's
    training_sets the file of the same name in validation_sets beside them."""

    model: str = "tiny"
    """The CLIP: a name as in "tiny" or "ViT-B-16/openai", or a folder of a model."""

    preset: str = "paper"
    """The settings not given here: "paper" (10 epochs a stage, batch 256), "tiny" (for small models: a high rate) or
    "keep" (beyond the paper: no warm-up; a matcher that begins as the cosine and is kept to its rankings of whole
    pictures, so that retrieval is not forgotten)."""

    kind: Maybe[MatcherKind] = None
    """The matching function: "linear" on both sides, on one alone, "mlp" or "attention" as in the paper; or, beyond it,
    "residual" and "residual-mlp", which begin as the cosine. "linear" unless given, "residual-mlp" with the preset
    keep."""

    hidden: Maybe[int] = None
    """Width between the layers of "mlp" and "residual-mlp"."""

    inputs: Maybe[Inputs] = None
    """What the matcher is given: embeddings raw, as in the official code and unless given, or of length one, as unless
    given with the preset keep."""

    objective: Maybe[Literal["hinge", "softmax"]] = None
    """How wrong captions are kept down: beyond a margin, as in the paper, or by a softmax over a region's captions."""

    normalisation: Maybe[Normalisation] = None
    """Along what captions have length one while details are learned: their features, as unless given, or the captions
    of a region, as the official code has it by mistake."""

    keep: Maybe[float] = None
    """Weight of what keeps whole pictures ranked as the cosine ranks them; not with a warm-up."""

    margin: Maybe[float] = None
    """By how much the right caption must score above wrong ones; 0.05 unless given."""

    pair_margin: Maybe[float] = None
    """By how much a picture and its own caption must score above others, in the warm-up; 0.2 unless given."""

    sharpness: Maybe[float] = None
    """What scores are multiplied by before a softmax; 20 unless given."""

    hardest: Flag = False
    """Count the worst wrong captions alone, in both stages."""

    wrong: Maybe[int] = None
    """Wrong captions of a region, the first so many; regions with fewer are left out; 10 unless given."""

    enlarge: Maybe[float] = None
    """Factor by which regions are enlarged before they are cut out; 1 unless given."""

    how: Maybe[Literal["crop", "dense"]] = None
    """The region encoder: cut out, as unless given, or pooled from the dense map of the picture. A matcher with
    --levels works with the encoder that it learned with."""

    size: Maybe[int] = None
    """Longest side of the pictures for --how dense, in pixels; the model's own unless given. Use the matcher at about
    the same."""

    levels: Maybe[tuple[int, ...]] = None
    """Look inside the image tower too: the mean and deviation of its maps after these blocks, from 0, as in "1 3" for
    tiny (a third and two thirds on are a good choice). Details of surfaces are told there that the last block drops."""

    skip_warmup: Flag = False
    """Leave the warm-up out: no --pairs are needed then, but for --keep."""

    pair_steps: Maybe[int] = None
    """Optimiser steps of the warm-up; the preset's number of epochs unless given."""

    pair_rate: Maybe[float] = None
    """The highest learning rate of the warm-up."""

    steps: Maybe[int] = None
    """Optimiser steps on regions; the preset's number of epochs unless given."""

    rate: Maybe[float] = None
    """The highest learning rate on regions."""

    batch_size: Maybe[int] = None
    """Items in a step of either stage, over all processes."""

    seed: Maybe[int] = None
    """Seed of the first weights and of the order of items."""

    precision: Maybe[Literal["auto", "fp32", "bf16", "fp16"]] = None
    """Arithmetic of training; fp32 unless given."""

    save_every: Maybe[int] = None
    """Steps on regions from one saved state to the next."""

    features: Maybe[Path] = None
    """A folder that keeps embeddings, for other trainings on the same data too; beside the log unless given."""

    workers: int = 2
    """Threads that read pictures ahead, while embeddings are made."""

    resume: Flag = False
    """Go on from the last saved states; an error where there is nothing to go on from. Embeddings are gone on with in
    any case."""

    resume_if_started: Flag = False
    """Go on where a training was begun, else begin."""

    report: Maybe[str] = None
    """Benchmarks that the cosine and the matcher are measured on at the end, as for closeup evaluate finegrained: the
    held-out regions unless given; "none" for no report."""

    report_limit: int = LIMIT
    """Only the first so many records of it."""

    json: Flag = False
    """Print one json document at the end."""

    def wanted(self) -> MatcherTraining:
        """Return what is to be trained."""
        warmup = {"steps": self.pair_steps, "rate": self.pair_rate}
        given = {name: value for name, value in warmup.items() if value is not None}
        if self.skip_warmup and given:
            told = " and ".join(f"--pair-{name}" for name in given)
            raise InputError(f"{told}: of the warm-up, which --skip-warmup leaves out. Drop one of them.")
        return MatcherTraining(
            regions=self.regions,
            pairs=self.pairs,
            held=self.held,
            model=self.model,
            preset=self.preset,
            config=self._given(CONFIG) | ({"hardest": True} if self.hardest else {}),
            training=self._given(TRAINING),
            warmup=None if self.skip_warmup else given,
            features=self.features,
            workers=self.workers,
        )

    def _given(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def run_adapt_finegrained(options: FineGrainedOptions) -> int:
    """Train a matcher, save it, and tell its rank and the cosine's."""
    if options.workers < 0 or options.report_limit < 1:
        raise InputError(
            f"--workers {options.workers} --report-limit {options.report_limit}: give 0 workers or more, and a record."
        )
    check_folder(options.out.parent)
    if options.features is not None:
        check_folder(options.features, "--features")
    wanted = options.wanted()
    line = held_line(wanted) if options.report is None else options.report
    benchmarks = None if line == NO_REPORT else open_benchmarks(line)
    resume = options.resume or (options.resume_if_started and is_begun(options.out))
    done = train_matcher(wanted, options.out, resume=resume, watch=counted)
    if not done.main:
        return 0
    reports, missing = None, []
    if benchmarks is not None:
        try:
            reports = _measure(options, done.folder, benchmarks)
        except DataError as error:  # the matcher is there, whatever the report lacks
            missing = [f"Not measured: {error}"]
    measured: dict[str, Any] | None = None
    if reports is not None:
        measured = {name: each.summary() for name, each in reports.items()}
        reports["matcher"].save(run_folder(done.folder) / "finegrained.json")
        told: dict[str, Any] = {"data": line, "limit": options.report_limit}
        write_card(done.folder, {**read_card(done.folder), "measured": {**measured, **told}})
    if options.json:
        report = None if measured is None else {**measured, "data": line}
        show_json({"matcher": done.folder, "figures": done.figures, "report": report})
        return 0
    show(
        f"Mean rank of the right caption on held-out regions: {_ranks(done.figures)}.",
        f"Written: {done.folder}; the log and the state are in {run_folder(done.folder)}.",
        *missing,
    )
    if reports is not None:
        show(*rank_lines(reports), f"On at most {options.report_limit} records of {line}. {TIE_RULE}")
    return 0


def _measure(options: FineGrainedOptions, folder: Path, benchmarks: dict[str, Reader]) -> dict[str, BenchmarksReport]:
    """Return what the cosine and the matcher achieve, on one pass over the pictures."""
    clip = load(options.model, precision="fp32" if options.precision == "fp32" else "auto")
    config = read_card(folder)["trained"]["config"]
    usual = negatives_of({name: reader for name, reader in benchmarks.items() if name in BENCHMARKS})
    wrong = {name: usual.get(name, config["wrong"]) for name in benchmarks}
    matchers = {"cosine": None, "matcher": load_matcher(folder, device=clip.device)}
    with counted("ranking captions") as tell:
        return evaluate_benchmarks(
            clip,
            benchmarks,
            matchers,
            negatives=wrong,
            how=config["how"],
            size=config["size"],
            scale=config["enlarge"],
            limit=options.report_limit,
            workers=options.workers,
            on_progress=tell,
        )


def _ranks(figures: dict[str, float]) -> str:
    """Return ranks in words, those that lead to the best one first."""
    warmed = [] if figures["warmed_up"] == figures["untrained"] else [f"after the warm-up {figures['warmed_up']:.4f}"]
    told = [f"cosine {figures['cosine']:.4f}", f"untrained {figures['untrained']:.4f}", *warmed]
    return ", ".join([*told, f"best {figures['rank']:.4f}"])
