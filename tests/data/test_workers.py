import subprocess
import sys

import pytest
import torch
from torch.utils.data import TensorDataset

from qprune.data import train_loader


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a thread who sent a signal")
def test_sigterm_ends_a_loader_process_only_if_the_training_process_sends_it():
    batches = iter(train_loader(TensorDataset(torch.arange(5.0)), batch=1, workers=1, prefetch=1))
    seen = [*next(batches)]
    (process,) = batches._workers
    subprocess.run(["kill", "-TERM", str(process.pid)], check=True)
    seen += [value for batch in batches for value in batch]
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert process.is_alive()
    process.terminate()
    process.join(10)
    assert process.exitcode == 0
