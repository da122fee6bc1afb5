"""What a training step launches on a GPU, counted as `benchmarks/launches.py` does."""

import pytest


@pytest.mark.parametrize(
    ("name", "at_once", "most"),
    [
        ("mobilenetv2", True, 1.22),
        ("mobilenetv2", False, 1.35),
        ("densenet121", True, 1.07),
        ("densenet121", False, 1.19),
    ],
)
def test_step_that_prunes_and_quantizes_launches_little_more_than_a_dense_one(bench, name, at_once, most):
    launches = bench("launches")
    dense = launches.count(name, False, False, 1).total()
    for at in (1, launches.NEVER):
        assert 1 < launches.count(name, True, True, at, at_once=at_once).total() / dense <= most


@pytest.mark.parametrize("measures", [False, True], ids=["steady", "measuring"])
@pytest.mark.parametrize("at_once", [False, True], ids=["by its layer", "at once"])
def test_each_site_launches_once_forwards_and_weights_once_together(bench, measures, at_once):
    launches = bench("launches")
    found = launches.count("mobilenetv2", True, True, launches.NEVER if measures else 1, at_once=at_once)
    weights, others = 54, 35 + 18  # convolutions and the classifier; rectifiers, and normalizations after blocks
    assert found["compress_site"] == others + weights * (not at_once)
    assert found["compress_rows"] == at_once
    assert found["pass_gradient"] == others
    assert not {"relu", "hardtanh", "bitwise_and", "round", "abs"} & set(found)
