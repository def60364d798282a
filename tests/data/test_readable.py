from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from closeup.data.folder import ImageFolder
from closeup.data.readable import Readable
from closeup.data.record import Reader
from closeup.errors import DataError
from commands import write_photo


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Return a folder of four pictures, the second and the last broken."""
    for index in range(4):
        write_photo(tmp_path / f"{index}.png", seed=index)
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:700])
    (tmp_path / "3.png").write_bytes(b"")
    return tmp_path


def test_good_pictures_are_the_readers_own(album: Path) -> None:
    reader = Readable(ImageFolder(album))
    assert isinstance(reader, Reader)
    assert len(reader) == 4
    for index in (0, 2):
        assert reader[index].id == f"{index}.png"
        assert np.array_equal(np.asarray(reader[index].load()), np.asarray(ImageFolder(album)[index].load()))


@pytest.mark.parametrize(("broken", "instead"), [(1, "2.png"), (3, "0.png")])
def test_the_next_good_picture_stands_in(album: Path, broken: int, instead: str) -> None:
    with pytest.warns(UserWarning, match=rf"left out: .*{broken}\.png"):
        assert Readable(ImageFolder(album))[broken].id == instead


@pytest.mark.filterwarnings("ignore:left out")
def test_an_album_of_broken_pictures_is_an_error(album: Path) -> None:
    for index in (0, 2):
        (album / f"{index}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="None of the 4 pictures"):
        Readable(ImageFolder(album))[0]


def test_beyond_the_end_there_is_nothing(album: Path) -> None:
    with pytest.raises(IndexError):
        Readable(ImageFolder(album))[4]
