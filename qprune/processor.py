"""What the operating system says about the processor, and its instructions for products of 8-bit integers."""

import platform
import subprocess
from contextlib import suppress
from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")
# flags of Linux and names of macOS, and what runtimes call the kernels that need them
KERNELS = {
    "amx_int8": "AMX", "avx512_vnni": "AVX512 VNNI", "avx_vnni": "AVX VNNI", "avx_vnni_int8": "AVX VNNI INT8",
    "asimddp": "NEON dot product", "i8mm": "NEON I8MM",
    "hw.optional.arm.FEAT_DotProd": "NEON dot product", "hw.optional.arm.FEAT_I8MM": "NEON I8MM",
}  # fmt: skip


def integer_kernels() -> str:
    """Instructions for products of 8-bit integers, and what torch's own kernels are compiled for.

    Example:
        >>> "torch" in integer_kernels()
        True
    """
    flags = _flags()
    by_torch = f"torch uses {torch.backends.cpu.get_cpu_capability()}"
    if flags is None:
        return f"the system does not say which this processor has; {by_torch}"
    found = list(dict.fromkeys(name for flag, name in KERNELS.items() if flag in flags))
    told = ", ".join(found) or "none of this processor: 8-bit networks are hardly faster here, but as small"
    return f"{told}; {by_torch}"


def processor_name() -> str:
    """The processor's name, as the system has it.

    Example:
        >>> bool(processor_name())
        True
    """
    with suppress(OSError):
        for line in CPUINFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return _sysctl("-n", "machdep.cpu.brand_string") or platform.processor() or platform.machine()


def _flags() -> set[str] | None:
    """Names of instructions; None where nobody says."""
    with suppress(OSError):
        for line in CPUINFO.read_text().splitlines():
            if line.partition(":")[0].strip() in ("flags", "Features"):
                return set(line.partition(":")[2].split())
    told = _sysctl("hw.optional")
    on = [line.partition(":") for line in told.splitlines()]
    return {name for name, _, value in on if value.strip() == "1"} or None


def _sysctl(*arguments: str) -> str:
    """What macOS says; empty elsewhere."""
    if platform.system() != "Darwin":
        return ""
    with suppress(OSError, subprocess.SubprocessError):
        run = subprocess.run(["sysctl", *arguments], capture_output=True, text=True, timeout=5, check=True)
        return run.stdout.strip()
    return ""
