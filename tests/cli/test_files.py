from __future__ import annotations

from pathlib import Path

import pytest

from closeup.cli.files import (
    Failure,
    check_folder,
    check_picture,
    each,
    find_photos,
    is_picture,
    output_names,
    report,
    track,
)
from closeup.cli.output import as_json
from closeup.errors import InputError
from commands import write_photo


def test_photos_come_once_and_missing_ones_are_told(photos: Path) -> None:
    found, failures = find_photos([str(photos), str(photos / "a.png"), str(photos / "gone.png")])
    assert found == [photos / "a.png", photos / "b.jpg", photos / "deep" / "a.png"]
    assert [failure.name for failure in failures] == [str(photos / "gone.png")]


def test_no_photo_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No photos"):
        find_photos([])
    with pytest.raises(InputError, match="gone"):
        find_photos([str(tmp_path / "gone.png"), str(tmp_path / "also.png")])


def test_names_keep_folders_and_tell_equal_stems_apart(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.png", "a.jpg", "b.png", "deep/a.png")]
    assert [name.as_posix() for name in output_names(paths).values()] == ["a.png", "a.jpg", "b", "deep/a"]
    assert output_names([tmp_path / "deep" / "a.png"]) == {tmp_path / "deep" / "a.png": Path("a")}


def test_one_that_fails_stops_no_other() -> None:
    def work(photo: Path) -> int:
        if photo.name == "b":
            raise InputError("b is bad")
        return len(photo.name)

    done, failures = each([Path("a"), Path("b"), Path("c")], work, "working")
    assert done == [(Path("a"), 1), (Path("c"), 1)]
    assert failures == [Failure("b", "b is bad")]
    with pytest.raises(InputError, match="b is bad"):
        each([Path("b")], work, "working")


def test_failures_are_listed_and_change_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert report([], 3) == 0
    assert capsys.readouterr().err == ""
    assert report([Failure("x.png", "empty\nfile")], 2) == 1
    assert capsys.readouterr().err == "closeup: failed: x.png: empty file\ncloseup: 1 failed, 2 done.\n"


def test_checking_an_output_makes_nothing(tmp_path: Path) -> None:
    check_folder(tmp_path / "new" / "deep")
    check_picture(tmp_path / "new" / "a.png")
    assert not (tmp_path / "new").exists()
    taken = write_photo(tmp_path / "taken.png")
    for wrong in (taken, taken / "below"):
        with pytest.raises(InputError, match=r"taken\.png is a file"):
            check_folder(wrong)
    with pytest.raises(InputError, match="ends with"):
        check_picture(tmp_path / "a.gif")
    (tmp_path / "folder.png").mkdir()
    assert not is_picture(tmp_path / "folder.png")
    with pytest.raises(InputError, match="is a folder"):
        check_picture(tmp_path / "folder.png")


def test_json_has_no_number_that_is_not_finite() -> None:
    value = {"a": (float("nan"), 1.5), 2: [Path("x"), float("inf")]}
    assert as_json(value) == {"a": [None, 1.5], "2": ["x", None]}


def test_a_bar_is_drawn_on_a_terminal_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(track(["a", "b"], "working")) == ["a", "b"]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(track(["a", "b"], "working")) == ["a", "b"]
    out, err = capsys.readouterr()
    assert out == ""
    assert "working" in err
    assert "2/2" in err
