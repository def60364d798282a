"""The command ``closeup``: finds the verb, runs it, and turns every expected error into one line."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from closeup.cli.parse import HELP, parse, summaries
from closeup.errors import CloseupError, InputError, suggest

VERBS: dict[str, tuple[str, str]] = {
    "segment": ("closeup.cli.segment", "colour every pixel of photos in your words"),
    "panoptic": ("closeup.cli.panoptic", "cut photos into things and grounds, named in your words"),
    "classify": ("closeup.cli.classify", "name boxes, masks or annotated regions of photos"),
    "detect": ("closeup.cli.detect", "find and name the objects of photos in your words"),
    "heatmap": ("closeup.cli.heatmap", "show where in a photo a phrase is"),
    "models": ("closeup.cli.models", "list the models that can be named"),
    "world": ("closeup.cli.world", "look at the embedded world, or write it in a public form"),
    "evaluate": ("closeup.cli.evaluate", "measure region recognition or segmentation on a data set"),
    "pretrain": ("closeup.cli.pretrain", "train the small CLIP that ships inside, from nothing"),
    "concepts": ("closeup.cli.concepts", "list what captions name: the nouns that enough pictures share"),
    "pairs": ("closeup.cli.pairs", "mine cut-out things with a noun each from captioned pictures"),
    "negatives": ("closeup.cli.negatives", "write captions that are wrong in a few attributes, from right ones"),
    "propose": ("closeup.cli.propose", "find regions in photos without any labels"),
    "adapt": ("closeup.cli.adapt", "make a CLIP better at regions, on your own photos"),
    "train": ("closeup.cli.train", "train a detector of any words on a CLIP"),
    "protocol": ("closeup.cli.protocol", "make the files of open-vocabulary COCO or LVIS from the official ones"),
    "blend": ("closeup.cli.blend", "mix an adapted model with what it was adapted from"),
    "reproduce": ("closeup.cli.reproduce", "make a paper's tables again, beside the paper's figures"),
    "demo": ("closeup.cli.demo", "see what the library does, on what ships inside"),
}
"""Every verb with its module and a summary. A module holds ``run(options) -> int`` and
``Options``: a dataclass, or one for each part of the verb."""

FAILED = 2
"""The exit code of an expected error, as of a command line that cannot be read."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 if some files failed, 2 for an error, 130 when interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    shown, warnings.showwarning = warnings.showwarning, _show_warning
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
    except CloseupError as error:
        return _fail(str(error))
    except BrokenPipeError:
        return _close_stdout()
    except KeyboardInterrupt:
        print("closeup: stopped.", file=sys.stderr)
        return 130
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}." if error.filename is not None else str(error))
    finally:
        warnings.showwarning = shown
    return code


def _dispatch(arguments: list[str]) -> int:
    verb = arguments[0] if arguments else "--help"
    if verb in HELP or verb == "help":
        print(_help())
        return 0
    if verb in ("-V", "--version"):
        print(f"closeup {_version()}")
        return 0
    if verb not in VERBS:
        raise InputError(f"Unknown verb {verb!r}. {suggest(verb, VERBS)} All of them: closeup --help.")
    module = importlib.import_module(VERBS[verb][0])
    try:
        options = parse(module.Options, f"closeup {verb}", arguments[1:])
    except SystemExit:  # help was asked for, and shown
        return 0
    code: int = module.run(options)
    return code


def _help() -> str:
    verbs = summaries({verb: summary for verb, (_, summary) in VERBS.items()})
    return f"""CLIP, up close: boxes, masks, pixels and attributes in words.

usage: closeup VERB [OPTIONS]
       closeup VERB --help

{verbs}

for example:
  closeup segment photo.jpg --words "dog, grass, red frisbee"
  closeup heatmap "a red star" photo.jpg --out heat.png
  closeup evaluate regions --data world --json"""


def _version() -> str:
    try:
        return version("closeup")
    except PackageNotFoundError:
        return "(not installed)"


def _fail(message: str) -> int:
    print(f"closeup: error: {' '.join(message.split())}", file=sys.stderr)
    return FAILED


def _close_stdout() -> int:
    # Whoever read the output has left, as `head` does. Python's own flush at exit must not complain again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"closeup: warning: {' '.join(str(message).split())}", file=sys.stderr)
