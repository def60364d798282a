"""Ctrl-C during a training: the step under way is finished and saved first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def finishing_the_step() -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether Ctrl-C was pressed; KeyboardInterrupt is raised when the block ends.

    A second Ctrl-C interrupts at once. Outside the main thread signals are left alone.
    """
    pressed = False

    def note(_: int, __: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, before)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
