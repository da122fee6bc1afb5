"""Integer kernels are those that the system names, not guesses."""

from pathlib import Path

import pytest
import torch

from qprune import processor


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_vnni avx_vnni", "AVX512 VNNI, AVX VNNI; "),
        ("Features\t: fp asimd asimddp i8mm", "NEON dot product, NEON I8MM; "),
        ("flags\t\t: fpu avx2", "none of this processor: 8-bit networks are hardly faster here, but as small; "),
    ],
)
def test_flags_of_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, told: str) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: A Processor: 7\n{line}\n")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    by_torch = f"torch uses {torch.backends.cpu.get_cpu_capability()}"
    assert processor.integer_kernels() == told + by_torch
    assert processor.processor_name() == "A Processor: 7"


def test_names_of_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "CPUINFO", Path("nowhere"))
    text = "hw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 0\n"
    monkeypatch.setattr(processor, "_sysctl", lambda *arguments: text)
    assert processor.integer_kernels().startswith("NEON dot product; ")


def test_a_system_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "CPUINFO", Path("nowhere"))
    monkeypatch.setattr(processor, "_sysctl", lambda *arguments: "")
    assert processor.integer_kernels().startswith("the system does not say which this processor has; torch uses ")
