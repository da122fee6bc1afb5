"""Products are in float32 inside the block, and the process has its own settings after it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from qprune.float32 import float32_math

HAS_PLACES = hasattr(torch.backends, "fp32_precision")
needs_places = pytest.mark.skipif(not HAS_PLACES, reason="torch before 2.9")
PLACES: list[Any] = (
    [torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv]
    if HAS_PLACES
    else []
)


def _for_all(precision: str) -> None:
    torch.backends.fp32_precision = precision  # type: ignore[attr-defined]


def _of_convolutions(precision: str) -> None:
    torch.backends.cudnn.conv.fp32_precision = precision


WAYS: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "products": lambda: torch.set_float32_matmul_precision("medium"),
    "older": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "all": lambda: _for_all("tf32"),
    "convolutions": lambda: _of_convolutions("ieee"),
}


def settings() -> list[Any]:
    found: list[Any] = [place.fp32_precision for place in (*PLACES, torch.backends.cudnn.rnn, torch.backends)]
    for read in (torch.get_float32_matmul_precision, lambda: torch.backends.cudnn.allow_tf32):
        try:
            found.append(read())
        except RuntimeError:  # the two spellings disagree
            found.append(None)
    return found


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    _for_all("none")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    for place, precision in zip(PLACES, ["none", "tf32", "none", "none"], strict=False):
        place.fp32_precision = precision


@needs_places
@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_process_has_its_own_settings_again_whichever_way_it_set_them(way: str, tf32: bool) -> None:
    WAYS[way]()
    before = settings()
    with pytest.raises(LookupError), float32_math(tf32=tf32):
        raise LookupError
    assert settings() == before


@needs_places
def test_a_place_that_had_what_is_set_for_all_follows_it_afterwards() -> None:
    _for_all("tf32")
    with float32_math():
        pass
    _for_all("none")
    assert torch.backends.mkldnn.conv.fp32_precision == "none"


@needs_places
def test_nothing_is_rounded_inside_and_with_tf32_what_gpus_multiply() -> None:
    WAYS["products"]()
    with float32_math(tf32=True):
        assert [place.fp32_precision for place in PLACES] == ["tf32", "tf32", "ieee", "ieee"]
        with float32_math():
            assert [place.fp32_precision for place in PLACES] == ["ieee"] * 4
        assert [place.fp32_precision for place in PLACES] == ["tf32", "tf32", "ieee", "ieee"]


@pytest.mark.parametrize("tf32", [False, True])
def test_the_older_spelling_says_the_same_inside(tf32: bool) -> None:
    with float32_math(tf32=tf32):
        assert torch.backends.cuda.matmul.allow_tf32 is tf32
        assert torch.backends.cudnn.allow_tf32 is tf32


@needs_places
def test_convolutions_of_a_processor_that_may_round_do_not_inside() -> None:
    conv, images = nn.Conv2d(16, 24, 3), torch.randn(2, 16, 20, 18)
    exact = conv(images)
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    if torch.equal(conv(images), exact):
        pytest.skip("this processor has no products of bfloat16")
    with float32_math():
        assert torch.equal(conv(images), exact)
    assert not torch.equal(conv(images), exact)
