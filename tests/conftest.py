import importlib
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# files that take minutes, to be begun first, so that two processes end at about the same time
LONG = {
    "test_processes.py", "test_docs.py", "test_own_networks.py", "test_exact_files.py", "test_kill.py",
    "test_zoo_shrunk.py", "test_process_faults.py", "test_streets.py", "test_layer_contract.py", "test_saving.py",
    "test_compiling.py", "test_published.py", "test_cli.py", "test_api.py", "test_teaching.py", "test_shrinking.py",
    "test_new.py", "test_shipped_specs.py", "test_learned.py", "test_searching.py", "test_waits.py",
}  # fmt: skip
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(Path(__file__).parent))  # for what several tests share

# the same examples everywhere, no deadline on a busy machine, no files beside the code
settings.register_profile("qprune", derandomize=True, deadline=None, database=None)
settings.load_profile("qprune")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONG)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="there is no GPU"))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def bench(monkeypatch):
    """Imports a file of the benchmarks, with those that it imports, and forgets them afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).parent == BENCHMARKS:
            del sys.modules[name]
