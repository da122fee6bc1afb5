"""`Rescue`: a run's folder that goes missing while it is trained ends the training, which is kept elsewhere."""

import logging
import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Protocol

from qprune.errors import CheckpointError
from qprune.training.callbacks import Callback
from qprune.training.claim import Claim
from qprune.training.run import Run
from qprune.training.writing import explaining_write_errors

log = logging.getLogger(__name__)


class Writer(Protocol):
    """A callback that writes into the run's folder."""

    def move_to(self, folder: Path) -> None:
        """Write into another folder from now on."""


class Rescue(Callback):
    """Looks, before anything is written, whether the run's folder is still the one that was claimed.

    Where it was removed, replaced by a link or another folder, or taken by another training, the present step ends, all
    that is known is written into a new folder beside it (``run`` from then on), or else into the system's folder for
    temporary files, and training ends with an error that names it. Belongs in front of the callbacks that write, as
    often as need be; ``writers`` are those that write into the folder.
    """

    def __init__(self, claim: Claim, spec_toml: str, writers: Sequence[Writer]) -> None:
        self.claim, self.run, self.spec_toml, self.writers = claim, claim.run, spec_toml, writers
        self._above = _status(claim.run.path.parent)

    @property
    def moved(self) -> bool:
        """Whether another folder took the place of the run's."""
        return self.run != self.claim.run

    def look(self) -> None:
        """Check that the folder is there; if it is gone, have everything written to another folder."""
        if self.moved or self.claim.held:
            return
        self.run = Run(self._new_folder())
        Run.create(self.run.path.parent, self.run.path.name, self.spec_toml)
        log.error("%s is gone: stopping after this step and saving in %s.", self.claim.run.path, self.run.path)
        for writer in self.writers:
            writer.move_to(self.run.path)
        self.trainer.interruption.came = True  # so that all processes stop after the same step, and save

    def _new_folder(self) -> Path:
        gone, above = self.claim.run.path, _status(self.claim.run.path.parent)
        if above is not None and self._above is not None and os.path.samestat(above, self._above):
            for number in count(1):
                beside = gone.with_name(f"{gone.name}-kept-{number}")
                try:
                    beside.mkdir()
                except FileExistsError:
                    continue
                except OSError:
                    break
                return beside
        with explaining_write_errors(gone):
            return Path(mkdtemp(prefix=f"qprune-{gone.name}-"))

    def tell(self) -> None:
        """End a training whose folder is gone."""
        if self.moved:
            gone, kept = self.claim.run.path, self.run.path
            raise CheckpointError(
                f"{gone} was removed, replaced or taken by another training while it was trained. All up to step "
                f"{self.trainer.step} is kept in {kept}. Move that to {gone}, or elsewhere, and go on with --resume."
            )

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Look for the folder: that takes microseconds, and a step that cannot be saved is in vain."""
        self.look()

    on_train_batch_end = on_epoch_end = on_train_end = on_exception = on_train_begin


def _status(folder: Path) -> os.stat_result | None:
    try:
        return folder.stat()
    except OSError:
        return None
