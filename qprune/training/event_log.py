"""`EventLog`: points for TensorBoard, in files that can be cut back to an earlier moment."""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import time, time_ns
from typing import IO, Any

from torch import Tensor

log = logging.getLogger(__name__)

SUFFIX = ".qprune"  # tells these files from those of other writers in the same folder
BINS = 30  # of a histogram; numbers that are far apart would get thousands otherwise
Point = tuple[str, float | Tensor, int, float]  # tag; number, picture or numbers to count; step; time


class EventLog:
    """Appends points to an event file when `flush` is called, and not before.

    torch's SummaryWriter writes from a thread of its own whenever it likes, so nobody knows what a killed process has
    left. Here the points of a flush are in the file when it returns, and `sizes` tells how many bytes the files have;
    cut back to the sizes of a checkpoint they hold exactly what was written before it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.sizes: dict[str, int] = {}
        self.pending: list[Point] = []
        self._name: str | None = None
        self._start: int | None = None
        self._warned = False

    def begin(self, step: int) -> None:
        """Continue in a new file at ``step``; TensorBoard then ignores later steps in the earlier files."""
        self._name, self._start = None, step

    def cut_back(self) -> None:
        """Cut the files back to `sizes`, and delete later ones of this writer."""
        try:
            cut_back(self.folder, self.sizes)
        except OSError as error:
            self._warn(error)

    def add(self, tag: str, value: float | Tensor, step: int) -> None:
        """Note a point: a number, a picture as uint8 (3, H, W), or (N) numbers, of which a histogram is shown."""
        self.pending.append((tag, value, step, time()))

    def flush(self) -> None:
        """Write what is pending; if that fails, warn once, and keep its numbers for the next time."""
        if not self.pending:
            return
        path = self.folder / (self._name or _new_name())
        try:
            self._append(path)
        except OSError as error:
            self._warn(error)
            with suppress(OSError):
                _cut(path, self.sizes.get(path.name))  # half a record would hide what comes after it
            self.pending = [point for point in self.pending if not isinstance(point[1], Tensor)]
        else:
            self.pending = []

    def _append(self, path: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            if self._name is None:
                _write_head(file, self._start)
            for point in self.pending:
                _write_point(file, point)
            file.flush()
            os.fsync(file.fileno())
        self._name, self.sizes[path.name] = path.name, path.stat().st_size

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            reason = error.strerror or error
            log.warning(
                "Training goes on without new points in %s: %s. They follow when there is room.", self.folder, reason
            )
        self._warned = True


def cut_back(folder: Path, sizes: Mapping[str, int]) -> None:
    """Cut the event files of `EventLog` in a folder back to ``sizes``, and delete those that are not named there."""
    for path in folder.glob(f"events.out.tfevents.*{SUFFIX}"):
        _cut(path, sizes.get(path.name))


def _cut(path: Path, size: int | None) -> None:
    if size is None or path.is_symlink():  # where a link leads is not ours to cut
        path.unlink(missing_ok=True)
    elif path.stat().st_size > size:
        os.truncate(path, size)


def _new_name() -> str:
    seconds, rest = divmod(time_ns(), 10**9)  # readers take the files in the order of their names
    return f"events.out.tfevents.{seconds:010d}.{rest:09d}{SUFFIX}"


def _write_head(file: IO[bytes], start: int | None) -> None:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    _write(file, Event(wall_time=time(), file_version="brain.Event:2"))
    if start:
        log_start = SessionLog(status=SessionLog.START)
        _write(file, Event(wall_time=time(), step=start + 1, session_log=log_start))


def _write_point(file: IO[bytes], point: Point) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from torch.utils.tensorboard.summary import histogram, image, scalar  # takes a second to import

    tag, value, step, when = point
    if isinstance(value, Tensor):
        summary = image(tag, value, dataformats="CHW") if value.dim() == 3 else histogram(tag, value, bins=BINS)
    else:
        summary = scalar(tag, value)
    _write(file, Event(wall_time=when, step=step, summary=summary))


def _write(file: IO[bytes], event: Any) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    RecordWriter(file).write(event.SerializeToString())
