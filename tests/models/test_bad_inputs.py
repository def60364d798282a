"""Arguments of the wrong kind, as a user gives them: in a process of its own, where no shape is checked for us."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
import numpy as np, torch, PIL.Image
from closeup.errors import CloseupError
from closeup.models import load
from closeup.regions import CropPolicy
from closeup.text import Vocabulary

clip = load(sys.argv[1], device="cpu")
photo = np.zeros((40, 64, 3), np.uint8)
tensors = torch.zeros(2, 3, 32, 32)
whole = [[0, 0, 64, 40]]
cases = [
    lambda: clip.encode_regions(tensors, boxes=[whole, whole]),
    lambda: clip.encode_regions(np.stack([photo, photo]), boxes=[whole, whole]),
    lambda: clip.encode_regions([photo, photo], boxes=[whole, None]),
    lambda: clip.encode_regions([photo, photo], boxes=7),
    lambda: clip.encode_regions(photo, boxes="abc"),
    lambda: clip.encode_regions(photo, boxes=[["a", 0, 9, 9]]),
    lambda: clip.encode_regions(photo, boxes=whole, how="crop", crop=CropPolicy(enlarge="a")),
    lambda: clip.encode_regions(photo, grid=3),
    lambda: clip.encode_regions(photo, grid=(1.5, 2)),
    lambda: clip.encode_regions(photo, grid=(1, 2), size=64.0),
    lambda: clip.encode_regions(photo, grid=(1, 2), size=(1, 2, 3)),
    lambda: clip.encode_dense(tensors, route=None),
    lambda: clip.encode_dense(tensors[0]),
    lambda: clip.encode_dense((tensors * 255).byte()),
    lambda: clip.encode_dense(PIL.Image.fromarray(photo)),
    lambda: clip.encode_text([1, 2]),
    lambda: Vocabulary(5),
]
for case in cases:
    try:
        case()
        print("no error")
    except CloseupError as error:
        print(error)
"""

EXPECTED = """\
images is a tensor: give paths, PIL pictures or uint8 arrays.
An image array is uint8 of height x width x 3, in RGB order; received uint8 of shape (2, 40, 64, 3).
boxes of image 1 cannot be read (not everything in it is a number): give rows of x0, y0, x1, y1 in pixels.
boxes is of type int: give a list, one entry an image, empty ones too.
boxes of image 0 cannot be read (it holds text): give rows of x0, y0, x1, y1 in pixels.
boxes of image 0 cannot be read (it holds text): give rows of x0, y0, x1, y1 in pixels.
enlarge is 'a': give a positive factor; 1.0 is the box itself.
grid is 3: give (rows, cols), two whole numbers.
grid is (1.5, 2): give (rows, cols), two whole numbers.
The image size 64.0 is not a side or (height, width) in whole pixels.
The image size (1, 2, 3) is not a side or (height, width) in whole pixels.
The route None is neither a name nor a Route.
Images are a float tensor (batch, 3, height, width), not torch.float32 of (3, 32, 32).
Images are a float tensor (batch, 3, height, width), not torch.uint8 of (2, 3, 32, 32).
Images are a tensor that preprocess made, not Image.
Text 0 is 1 (int). Give strings.
names is 5 (int); give a list of strings.
"""


@pytest.mark.slow
def test_wrong_kinds_are_one_clear_sentence(small_clip_folder: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(small_clip_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for said, expected in zip(done.stdout.splitlines(), EXPECTED.splitlines(), strict=True):
        assert said.startswith(expected)
