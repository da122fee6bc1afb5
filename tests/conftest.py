import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # for what several tests share

# the same examples everywhere, no deadline on a busy machine, no files beside the code
settings.register_profile("qprune", derandomize=True, deadline=None, database=None)
settings.load_profile("qprune")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
