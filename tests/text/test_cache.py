from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from closeup.text.cache import cache_folder, content_key, load_embeddings, store_embeddings


@pytest.fixture
def embeddings() -> torch.Tensor:
    return torch.randn(5, 7, generator=torch.Generator().manual_seed(0))


def test_what_is_stored_is_read_bit_for_bit(tmp_path: Path, embeddings: torch.Tensor) -> None:
    path = tmp_path / "deep" / "key.safetensors"
    assert load_embeddings(path) is None
    store_embeddings(path, embeddings)
    read = load_embeddings(path)
    assert read is not None
    assert torch.equal(read, embeddings)
    assert [file.name for file in path.parent.iterdir()] == ["key.safetensors"]


def test_a_damaged_file_reads_as_absent(tmp_path: Path, embeddings: torch.Tensor) -> None:
    path = tmp_path / "key.safetensors"
    store_embeddings(path, embeddings)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-40] ^= 1
    for content in (b"", b"garbage", whole[:-1], whole[:9], whole + b"x", bytes(flipped)):
        path.write_bytes(content)
        assert load_embeddings(path) is None


def test_a_file_of_another_form_reads_as_absent(tmp_path: Path, embeddings: torch.Tensor) -> None:
    path = tmp_path / "key.safetensors"
    for tensors in ({"other": embeddings}, {"embeddings": embeddings, "sha256": torch.zeros(3)}):
        save_file(tensors, path)
        assert load_embeddings(path) is None


def test_a_folder_that_cannot_be_made_is_a_warning(tmp_path: Path, embeddings: torch.Tensor) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="CLOSEUP_CACHE"):
        store_embeddings(tmp_path / "file" / "key.safetensors", embeddings)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, embeddings: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key.safetensors"
    store_embeddings(path, embeddings)

    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.warns(UserWarning, match="No space left"):
        store_embeddings(path, embeddings + 1)
    assert [file.name for file in tmp_path.iterdir()] == ["key.safetensors"]
    read = load_embeddings(path)
    assert read is not None
    assert torch.equal(read, embeddings)


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLOSEUP_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("CLOSEUP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "closeup"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "closeup"


def test_a_key_depends_on_every_part() -> None:
    keys = {content_key("w", [["a b"]], "m"), content_key("w", [["a", "b"]], "m"), content_key("w", [["a b"]], "n")}
    assert len(keys) == 3
    assert content_key("w", [["a b"]], "m") in keys


WRITER = """
import sys, time
from pathlib import Path
import torch
from closeup.text.cache import load_embeddings, store_embeddings
path, value, start = Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
start.with_suffix(f".{value}").touch()
while not start.exists():
    time.sleep(0.005)
seen = set()
for _ in range(150):
    store_embeddings(path, torch.full((400, 64), value))
    read = load_embeddings(path)
    if read is None or len(read.unique()) != 1:
        sys.exit("a reader saw half a file")
    seen.add(float(read[0, 0]))
print(sorted(seen))
"""


@pytest.mark.slow
def test_two_processes_may_write_at_once(tmp_path: Path) -> None:
    path, start = tmp_path / "cache" / "key.safetensors", tmp_path / "start"
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), value, str(start)], stdout=subprocess.PIPE)
        for value in ("1.0", "2.0")
    ]
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob("start.*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    start.touch()
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    read = load_embeddings(path)
    assert read is not None
    assert torch.equal(read, read[:1, :1].expand_as(read))
    assert float(read[0, 0]) in (1.0, 2.0)
    assert [file.name for file in path.parent.iterdir()] == ["key.safetensors"]
