"""What a training step launches on a GPU, counted as `benchmarks/launches.py` does."""

import pytest


@pytest.mark.parametrize(("name", "most"), [("mobilenetv2", 1.35), ("densenet121", 1.2)])
def test_step_that_prunes_and_quantizes_launches_little_more_than_a_dense_one(bench, name, most):
    launches = bench("launches")
    dense = launches.count(name, False, False, 1).total()
    for at in (1, launches.NEVER):
        assert 1 < launches.count(name, True, True, at).total() / dense <= most


@pytest.mark.parametrize("measures", [False, True], ids=["steady", "measuring"])
def test_each_site_launches_once_forwards(bench, measures):
    launches = bench("launches")
    found = launches.count("mobilenetv2", True, True, launches.NEVER if measures else 1)
    assert found["compress_site"] == 54 + 35 + 18  # convolutions, rectifiers, normalizations after blocks
    assert found["pass_gradient"] == 35 + 18
    assert not {"relu", "hardtanh", "bitwise_and", "round", "abs"} & set(found)
