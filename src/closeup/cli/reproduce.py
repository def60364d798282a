"""The verb ``reproduce``: each paper's key tables on the world, beside the paper's figures."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from closeup.cli.fields import Flag, Maybe
from closeup.cli.files import check_folder, counted
from closeup.cli.output import show, show_json, table
from closeup.reproduce.page import cells
from closeup.reproduce.registry import get_reproduction
from closeup.reproduce.run import Wanted, reproduce
from closeup.reproduce.stamp import stamp


@dataclass(frozen=True)
class Options:
    """Make a paper's tables again on the embedded world, beside the paper's own figures.

    It measures the models that ship, in minutes. With --train it makes them again from tiny first, and those of the
    ablations too: hours on two cores, and it goes on where it was stopped. Detectors stand on the models that ship.
    What is found is written to results/NAME.json and to the page docs/results/NAME.md with its pictures; tables that
    are not measured now are kept from the file that is there.

        closeup reproduce clipself
        closeup reproduce regionclip
        closeup reproduce detection --train
        closeup reproduce ovseg
        closeup reproduce denseclip --train --camvid /data/camvid
        closeup reproduce finegrained --tables shipped detector-or-clip
        closeup reproduce segmentation --tables untrained panoptic
        closeup reproduce clipself --tables regions forgetting --json
        closeup reproduce clipself --train --work runs/clipself
        closeup reproduce clipself --train --tables blocks
    """

    name: Positional[str]
    """Which paper or task: "clipself", "regionclip", "detection", "ovseg", "segmentation", "denseclip" or
    "finegrained"."""

    out: Path = Path(".")
    """The folder under which results/ and docs/results/ are written."""

    train: Flag = False
    """Make the models again from tiny before measuring them."""

    tables: Maybe[tuple[str, ...]] = None
    """Only these tables, by the names that --json prints; all that can be had unless given."""

    work: Path = Path("runs/reproduce")
    """The folder of the models that --train makes."""

    camvid: Maybe[Path] = None
    """The folder of CamVid (images/ and labels/ with train, val and test), for the tables on real photographs; they
    are left out unless given."""

    quick: Flag = False
    """The same way with a handful of pictures, to see that it works; the figures mean nothing, and are written to
    files of their own."""

    json: Flag = False
    """Print one json document instead of tables."""


def run(options: Options) -> int:
    """Measure, write and print."""
    what = get_reproduction(options.name)
    check_folder(options.out)
    if options.train:
        check_folder(options.work, "--work")
    if options.camvid is not None:
        check_folder(options.camvid, "--camvid")
    wanted = Wanted(options.train, options.quick, options.tables, options.work, options.camvid)
    result, written = reproduce(what, wanted, options.out, lambda: stamp(_command(options)), counted)
    if options.json:
        show_json({**result.to_dict(), "written": written})
        return 0
    for found in result.tables:
        columns, lines = cells(found)
        show(f"\n{found.title}", table(columns, lines), *found.findings)
    show("", *(f"Written: {path}" for path in written))
    return 0


def _command(options: Options) -> str:
    words = ["closeup", "reproduce", options.name]
    words += ["--train"] if options.train else []
    words += ["--tables", *options.tables] if options.tables else []
    words += ["--camvid", "CAMVID"] if options.camvid else []
    words += ["--quick"] if options.quick else []
    return shlex.join(words)
