"""`examine`: whether this machine has what training needs, and what it computes with."""

import importlib
import os
import platform
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryFile
from time import perf_counter

import torch
from attrs import frozen
from torch import nn

from qprune import zoo
from qprune.assemble import swap
from qprune.processor import integer_kernels, processor_name
from qprune.readable import number_text
from qprune.training import ScheduleDriver, choose_device, runs_root
from qprune.version import __version__

NOT_FOR_USERS = ("dev",)
STEPS = 4  # of which the first is not timed


@frozen
class Finding:
    """One thing that was looked at."""

    what: str
    found: str  # what is there, or what to do
    is_needed: bool = False  # whether training does not work like this

    def __str__(self) -> str:
        return f"{self.what}: {self.found}"


def examine(runs: Path | str | None = None) -> Iterator[Finding]:
    """Look at versions, packages, devices, the folder of the runs, and how long a training step takes.

    Run folders lie in ``runs``, else ``QPRUNE_RUNS``, else ``./runs``.

    Example:
        >>> next(examine()).what
        'qprune'
    """
    yield Finding("qprune", f"{__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}")
    yield from _packages()
    yield from _devices()
    yield Finding("integer kernels", integer_kernels())
    yield from _extras()
    yield _folder(runs_root(runs))
    yield _step()


def _packages() -> Iterator[Finding]:
    """The packages that qprune cannot do without."""
    versions: list[str] = []
    for name in _requirements().get("", []):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            yield Finding(name, f"is missing: pip install {name}", is_needed=True)
    yield Finding("packages", ", ".join(versions))
    try:
        importlib.import_module("torchvision.ops")
    except Exception as error:  # whatever a library that does not fit torch raises
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no text'}"
        way_out = "install a pair that belongs together: pip install --force-reinstall torch torchvision"
        yield Finding("torchvision", f"does not work with this torch ({reason}); {way_out}", is_needed=True)


def _devices() -> Iterator[Finding]:
    threads = torch.get_num_threads()
    yield Finding("CPU", f"{processor_name()}, {os.cpu_count()} cores, torch uses {threads}")
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        yield Finding(f"GPU {index}", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB")
    yield Finding("trains on", str(choose_device(None)))


def _extras() -> Iterator[Finding]:
    extras = {extra: names for extra, names in _requirements().items() if extra and extra not in NOT_FOR_USERS}
    missing = {extra for extra, names in extras.items() if not all(map(_is_installed, names))}
    yield Finding("extras", ", ".join(extra for extra in extras if extra not in missing) or "none are installed")
    for extra in extras:
        if extra in missing:
            yield Finding(f"extra {extra}", f'not installed; if you want it: pip install "qprune[{extra}]"')


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _requirements() -> dict[str, list[str]]:
    """The names of the packages that qprune names, by extra; those of ``""`` are always needed."""
    found: dict[str, list[str]] = {"": []}
    for line in metadata.requires("qprune") or []:
        requirement, _, condition = line.partition(";")
        name, extra = re.match(r"[\w.-]+", requirement), re.search(r"""extra == ["']([\w-]+)["']""", condition)
        if name is not None:
            found.setdefault(extra[1] if extra else "", []).append(name[0])
    return found


def _folder(root: Path) -> Finding:
    there = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    what = f"folder of runs, {root}"
    if not there.is_dir():
        return Finding(what, f"cannot be written, as {there} is no folder; choose one with QPRUNE_RUNS", is_needed=True)
    try:
        with TemporaryFile(dir=there):
            pass
    except OSError as error:
        reason = error.strerror or error
        return Finding(what, f"cannot be written: {reason}; choose another folder with QPRUNE_RUNS", is_needed=True)
    return Finding(what, "can be written")


def _step() -> Finding:
    device = choose_device(None)
    weights = {"sites": [{"types": ["Conv2d", "Linear"], "at": "weight"}], "bits": 8, "per": "channel", "start": 1}
    values = {"sites": [{"types": ["ReLU"], "at": "output"}], "bits": 8, "start": 1}
    with torch.random.fork_rng(devices=[]):
        net = zoo.create("resnet20", classes=10)
        quantized = swap(net, torch.zeros(1, 3, 32, 32), quantize=[weights, values])
        times = [_seconds(each.to(device), device) for each in (net, quantized)]
    dense, joint = (f"{number_text(1000 * seconds)} ms" for seconds in times)
    return Finding(
        "a step", f"{dense} dense, {joint} with 8-bit weights and activations (resnet20, 32 images of 32x32)"
    )


def _seconds(net: nn.Module, device: torch.device) -> float:
    """Of a training step, the fastest of a few."""
    net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    driver = ScheduleDriver(net, optimizer=optimizer)
    images = torch.randn(32, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    labels = torch.arange(32, device=device) % 10
    times = []
    for _ in range(STEPS):
        began = perf_counter()
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
        driver.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(perf_counter() - began)
    return min(times[1:])
