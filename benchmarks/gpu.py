"""What qprune does on a GPU, in one table: is it right, how fast is it, what does it hold, does it go on to the bit.

    python benchmarks/gpu.py [--out gpu] [--minutes 10]
    python benchmarks/gpu.py --device cpu --quick

It writes ``gpu.md`` and ``gpu.json``. Every case runs in a process of its own, in order of weight; a case for which the
minutes do not suffice is ended, and what it did not measure is named. The second command is a rehearsal: the same code
on small networks without a GPU, whose times mean nothing.

Steps take turns within one run; ratios are medians to the dense step in torch's default layout, and to the dense step
that is taken in the same way. Except for the variants that say so, float32 is float32: TF32 is off.
"""

import argparse
import copy
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen
from counters import Launches, LiveBytes
from steps import WORKS, Step, Way, interleaved
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torchvision.io import write_png

import qprune
from qprune.layers import sites
from qprune.spec import Spec, read_spec
from qprune.training import Callback, Trainer, load_checkpoint, prepare

ROOT = Path(__file__).parents[1]
JOINT = Way(prune=True, quantize=True)
EAGER = {
    "dense": Way(channels_last=False),
    "dense, channels_last": Way(),
    "pruned": Way(prune=True),
    "quantized": Way(quantize=True),
    "joint": JOINT,
    "joint, moving average": evolve(JOINT, average=True),
    "joint, TF32": evolve(JOINT, tf32=True),
    "joint, bfloat16": evolve(JOINT, precision="bfloat16"),
}
COMPILED = {
    "joint, compiled": evolve(JOINT, compile="inductor"),
    "joint, reduce-overhead": evolve(JOINT, compile="inductor", mode="reduce-overhead"),
}
QUICK = "aot_eager"  # compiles at once, and runs what it compiled as it is

STEPS = {"of": "of dense", "alike": "of dense alike", "ms": "ms", "images": "images/s", "kernels": "kernels",
         "peak": "peak MB", "peak_of_dense": "of dense alike"}  # fmt: skip
TABLES: dict[str, tuple[str, dict[str, str]]] = {
    "correct": ("Equal to the CPU", {"masks": "masks", "codes": "codes", "loss": "loss, largest difference"}),
    "steps": ("Training steps", STEPS),
    "training": ("Trainings", {"seconds": "seconds", "of": "of dense", "waiting": "waiting for data"}),
    "resume": ("Going on", {"same": "same bits", "off": "largest difference"}),
    "tests": ("Tests marked gpu", {"outcome": "outcome"}),
}


@frozen
class Setting:
    """What a case is told."""

    device: torch.device
    quick: bool
    write: Callable[[dict[str, Any]], None]  # takes a row

    def row(self, table: str, name: str, **values: Any) -> None:
        """Keep a row of a table."""
        self.write({"table": table, "row": name, **values})


# --- Is it right?


def small_spec(task: str, **train: Any) -> Spec:
    """A short training of a task on images that come along: masks chosen in step 4, quantizers from step 8 on."""
    pair = {"name": "streets", "size": 64, "translate": "BtoA", "train_images": 8}
    kinds: dict[str, dict[str, Any]] = {
        "classification": {
            "data": {"name": "digits", "train_images": 100},
            "model": {"arch": "resnet20", "width": 0.25},
        },
        "segmentation": {
            "data": {"name": "streets", "train_images": 12},
            "model": {"arch": "unet", "width": 0.125},
        },
        "cyclegan": {
            "data": pair | {"unpaired": True},
            "model": {"arch": "cyclegan", "width": 0.1, "width_ba": 0.1, "width_discriminators": 0.1},
        },
        "pix2pix": {"data": pair | {"size": 256, "train_images": 2}, "model": {"arch": "pix2pix", "width": 0.1}},
    }
    chosen: dict[str, Any] = {"types": ["Conv2d"], "skip": [0]}
    if task in ("cyclegan", "pix2pix"):
        chosen["paths"] = ["generator_ab.*" if task == "cyclegan" else "generator.*"]
    acts, weights = [chosen | {"at": "input"}], [chosen | {"at": "weight"}]
    start = {"bits": 8, "start": "8it"}
    common = {
        "name": f"gpu/{task}",
        "task": {"name": task},
        "train": {
            "length": "12it",
            "batch": 1 if "paths" in chosen else 4,
            "validate_every": "12it",
            "optimizer": {"name": "sgd", "lr": 1e-3},
        }
        | train,
        "prune": [{"sites": acts, "sparsity": 0.5, "schedule": {"kind": "one-shot", "at": "4it", "measure": "3it"}}],
        "quantize": [{"sites": weights, "per": "channel"} | start, {"sites": acts} | start],
    }
    return read_spec(kinds[task] | common)


class Losses(Callback):
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        """Read the loss back."""
        self.losses.append(float(logs["loss"]))


def trained(spec: Spec, device: torch.device | str) -> tuple[Trainer, list[float]]:
    """A training of a spec on a device, and its losses."""
    trainer, losses = prepare(spec, device=str(device)).trainer, Losses()
    trainer.val = None
    trainer.use([losses])
    trainer.fit()
    return trainer, losses.losses


@torch.no_grad()
def codes_of(net: nn.Module, batch: Any) -> list[Tensor]:
    """The integers of every quantized weight and activation of a network in eval mode, for one batch."""
    found: list[Tensor] = []

    def keep(site: Any) -> Callable[..., None]:
        return lambda module, inputs, output=None: found.append(
            site.quant.codes(inputs[0] if site.side == "input" else output).cpu()
        )

    handles = []
    modules = dict(net.named_modules())
    for site in sites(net):
        module: Any = modules[site.path]
        if site.quant is None:
            continue
        if site.side == "weight":
            found.append(site.quant.codes(module.rows(module.weight)).cpu())
        elif site.side == "input":
            handles.append(module.register_forward_pre_hook(keep(site)))
        else:
            handles.append(module.register_forward_hook(keep(site)))
    with qprune.training.evaluating(net):
        net(batch)
    for handle in handles:
        handle.remove()
    return found


def correct(setting: Setting) -> None:
    """Each task trained on the CPU and on the device; then the network of the CPU on both, integer by integer."""
    for task in ("classification", "segmentation", "cyclegan", "pix2pix"):
        spec = small_spec(task)
        (here, ours), (there, theirs) = trained(spec, "cpu"), trained(spec, setting.device)
        pairs = [
            (one.mask.keep, other.mask.keep.cpu())
            for one, other in zip(sites(here.net), sites(there.net), strict=True)
            if one.mask is not None and other.mask is not None
        ]
        there.net.load_state_dict(here.net.state_dict())
        batch = here.update.inputs(here.batch)
        both = list(zip(codes_of(here.net, batch), codes_of(there.net, batch.to(setting.device)), strict=True))
        equal, count = sum(int((a == b).sum()) for a, b in both), sum(a.numel() for a, _ in both)
        setting.row(
            "correct",
            task,
            masks=f"{sum(torch.equal(*pair) for pair in pairs)} of {len(pairs)}",
            codes=f"{100 * equal / count:.4f} % of {count:,}",
            loss=f"{max(abs(a - b) / abs(a) for a, b in zip(ours, theirs, strict=True)):.1e}",
        )


# --- How fast is it?


def kernels(step: Step) -> int:
    """Kernels that a step launches, by the profiler; on a CPU, which launches none, its operations but views."""
    if step.device.type != "cuda":
        with Launches() as launches:
            step.take()
        return launches.counts.total()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        step.take()
    on_card = (event for event in found.events() if event.device_type == torch.autograd.DeviceType.CUDA)
    return sum(not event.name.startswith(("Memcpy", "Memset")) for event in on_card)


def peak(step: Step) -> int:
    """Most bytes that a step holds beside weights, moments and images; on a CPU without what operations need within."""
    step.optimizer.zero_grad()
    if step.device.type != "cuda":
        with LiveBytes() as live:
            step.take()
        return live.peak
    torch.cuda.reset_peak_memory_stats(step.device)
    before = torch.cuda.memory_allocated(step.device)
    step.take()
    return torch.cuda.max_memory_allocated(step.device) - before


def measure_steps(setting: Setting, name: str, ways: dict[str, Way]) -> None:
    """A row for each way of one network; an error is its row's."""
    work = WORKS[name]
    size, batch, width = (work.small, 2, 0.1) if setting.quick else (work.size, work.batch, 1.0)
    images, net = torch.randn(batch, *size, device=setting.device), work.make(width)
    dense = Step(copy.deepcopy(net), work, EAGER["dense"], images)
    for title, way in ways.items():
        if setting.quick and way.compile:
            way = evolve(way, compile=QUICK, mode=None)
        try:
            alike = Step(copy.deepcopy(net), work, way.dense, images)
            step = Step(copy.deepcopy(net), work, way, images)
            turns = {"dense": dense, "alike": alike, "step": step}
            often: dict[str, int] = {"rounds": 1, "warm": 2} if setting.quick else {"rounds": 10, "first": 1}
            times = interleaved(turns, **often)
            taken = {turn: statistics.median(seconds) for turn, seconds in times.items()}
            found: dict[str, Any] = {
                "of": round(taken["step"] / taken["dense"], 3),
                "alike": round(taken["step"] / taken["alike"], 3),
                "ms": round(1000 * taken["step"], 3),
                "images": round(batch / taken["step"], 1),
                "kernels": kernels(step),
            }
            held = peak(step), peak(alike)
            found |= {"peak": round(held[0] / 2**20, 1), "peak_of_dense": round(held[0] / held[1], 3)}
        except (RuntimeError, ValueError) as error:
            found = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
        setting.row("steps", f"{name}: {title}", **found)
        step = alike = None  # type: ignore[assignment]  # before the next ones are made
        if setting.device.type == "cuda":
            torch.cuda.empty_cache()


# --- Trainings


class Clock(Callback):
    """Seconds of a training from its third step on, and how many of them were spent waiting for data."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        """Begin to count, once all is warm."""
        if self.trainer.step == 2:
            self._wait()
            self.began = time.perf_counter()
            self.trainer.feed.take_waited()

    def on_train_end(self, logs: dict[str, Any]) -> None:
        """Count."""
        self._wait()
        self.seconds = time.perf_counter() - self.began
        self.waited = self.trainer.feed.take_waited()

    def _wait(self) -> None:
        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize(self.trainer.device)


def training(setting: Setting) -> None:
    """mobilenetv2 on images that are decoded and augmented: dense; pruned and cut while it trains."""
    images, batch, steps = (64, 4, 310) if setting.quick else (8192, 128, 640)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(images):
            path = Path(folder, "test" if number < 8 else "train", str(number % 4))
            path.mkdir(parents=True, exist_ok=True)
            write_png(torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8), str(path / f"{number}.png"))
        crop = [{"name": "RandomCrop", "size": 32, "padding": 4}, {"name": "RandomHorizontalFlip"}]
        workers = 0 if setting.quick else 8
        table: dict[str, Any] = {
            "data": {"name": "folder", "root": folder, "augment": crop, "workers": workers, "size": 32},
            "model": {"arch": "mobilenetv2", "width": 0.1 if setting.quick else 1.0},
            "task": {"name": "classification"},
            "train": {"length": f"{steps}it", "batch": batch, "validate_every": f"{steps + 1}it",
                      "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9}},
        }  # fmt: skip
        schedule: dict[str, Any] = {"finish": "35%", "schedule": {"kind": "layerwise"}}
        pruned = [{"sites": list(WORKS["mobilenetv2"].masks), "sparsity": 0.75} | schedule]
        shrunk = table | {"prune": pruned, "train": table["train"] | {"shrink": "as-frozen"}}
        taken: dict[str, float] = {}
        for name, each in {"dense": table, "75 % pruned, cut as masks freeze": shrunk}.items():
            trainer, clock = prepare(read_spec(each | {"name": "gpu"}), device=str(setting.device)).trainer, Clock()
            trainer.val = None
            trainer.use([clock])
            trainer.fit()
            taken[name] = clock.seconds
            setting.row(
                "training",
                f"mobilenetv2, {steps} steps of {batch}: {name}",
                seconds=round(clock.seconds, 2),
                of=round(clock.seconds / taken["dense"], 3),
                waiting=f"{100 * clock.waited / clock.seconds:.0f} %",
            )


class Stop(Callback):
    """Interrupts a training after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        """Ask for the end, as Ctrl-C does."""
        if self.trainer.step == self.step:
            self.trainer.stop_training = self.trainer.history.interrupted = True


def resume(setting: Setting) -> None:
    """A joint training that was interrupted between masks and quantizers, beside one that was not."""
    fused = {"name": "sgd", "lr": 1e-3, "momentum": 0.9, "fused": True}
    for name, train in {
        "float32": {},
        "bfloat16, moving average, fused": {"precision": "bfloat16", "ema": 0.9, "optimizer": fused},
    }.items():
        spec = small_spec("classification", **train)
        with tempfile.TemporaryDirectory() as runs:
            options: dict[str, Any] = {"device": str(setting.device), "deterministic": True, "verbose": 0, "runs": runs}
            whole = qprune.fit(spec, name="whole", **options)
            qprune.fit(spec, name="parts", callbacks=[Stop(6)], **options)
            parts = qprune.fit(spec, name="parts", resume=True, **options)
            assert whole.run is not None and parts.run is not None  # noqa: PT018
            one, other = (load_checkpoint(each.run / "model.pt")["state"] for each in (whole, parts))
        off = max(float((one[key].double() - other[key].double()).abs().max()) for key in one if one[key].numel())
        setting.row("resume", name, same="yes" if off == 0 else "no", off=f"{off:.1e}")


def tests(setting: Setting) -> None:
    """The tests that need a GPU; without one each is skipped."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/whole/test_gpu.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["nothing"]
    failed = {} if done.returncode == 0 else {"failed": "; ".join(lines[-8:])}
    setting.row("tests", "tests/whole/test_gpu.py", outcome=lines[-1].strip("= "), **failed)


# --- Cases, each in a process of its own


def cases(quick: bool) -> dict[str, tuple[Callable[[Setting], None], list[str]]]:
    """What is run, in order of weight, with the rows that it is to give."""

    def steps(name: str, ways: dict[str, Way]) -> tuple[Callable[[Setting], None], list[str]]:
        return lambda setting: measure_steps(setting, name, ways), [f"{name}: {title}" for title in ways]

    first = {"correct": (correct, ["every task"]), "mobilenetv2": steps("mobilenetv2", EAGER)}
    others = [name for name in WORKS if name != "mobilenetv2"]
    rest = {name: steps(name, EAGER) for name in others}
    compiled = {f"{name}, compiled": steps(name, COMPILED) for name in (WORKS if not quick else ["resnet_generator"])}
    runs = {"resume": (resume, ["resume"]), "tests": (tests, ["tests"]), "training": (training, ["training"])}
    return first | runs | rest | compiled


def run_cases(names: list[str], file: Path, device: str, quick: bool) -> None:
    """Run cases in this process; rows, and the names of what is done, go to a file as lines of JSON."""
    with file.open("a", encoding="utf-8") as out:

        def write(row: dict[str, Any]) -> None:
            print(json.dumps(row), file=out, flush=True)

        for name in names:
            torch.manual_seed(0)
            cases(quick)[name][0](Setting(torch.device(device), quick, write))
            write({"done": name})


def read_rows(file: Path) -> Iterator[dict[str, Any]]:
    """What cases wrote; the last line of one that was ended may be broken."""
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def orchestrate(device: str, quick: bool, minutes: float) -> dict[str, Any]:
    """Run every case in turn, each ended when the minutes are over."""
    end = time.monotonic() + 60 * minutes
    ended: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows"
        # a rehearsal is one process, because starting one takes longer than its cases
        groups = [list(cases(quick))] if quick else [[name] for name in cases(quick)]
        for group in groups:
            command = [sys.executable, __file__, "--device", device, "--rows", str(file), "--cases", *group]
            left = end - time.monotonic()
            if left < 15:
                ended |= dict.fromkeys(group, "no time was left")
                continue
            print(f"{', '.join(group)} ...", flush=True)
            try:
                done = subprocess.run([*command, "--quick"] if quick else command, timeout=left, check=False)
                reason = f"its process ended with {done.returncode}" if done.returncode else ""
            except subprocess.TimeoutExpired:
                reason = "the time was over"
            ended |= dict.fromkeys(group, reason) if reason else {}
        rows = list(read_rows(file))
    finished = {row["done"] for row in rows if "done" in row}
    rows = [row for row in rows if "row" in row]
    known = {row["row"] for row in rows}
    missing = [
        f"{row} ({ended[name]})"
        for name, (_, planned) in cases(quick).items()
        if name in ended and name not in finished
        for row in planned
        if row not in known
    ]
    return {"rows": rows, "not_measured": missing}


def about(device: str, quick: bool) -> dict[str, Any]:
    """What was measured, on what."""
    card = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    return {"rehearsal": quick or not device.startswith("cuda"), "device": card, "torch": str(torch.__version__),
            "qprune": qprune.__version__, "threads": torch.get_num_threads()}  # fmt: skip


def as_markdown(report: dict[str, Any]) -> str:
    """The tables of a report."""
    lines = [f"# qprune {report['qprune']} on {report['device']}, torch {report['torch']}"]
    if report["rehearsal"]:
        lines.append("**A rehearsal on small networks without a GPU: its times mean nothing.**")
    for name, (title, columns) in TABLES.items():
        rows = [row for row in report["rows"] if row["table"] == name]
        if rows:
            lines += [f"## {title}", _table(["", *columns.values()], [_cells(row, list(columns)) for row in rows])]
    if report["not_measured"]:
        lines += ["## Not measured", "\n".join(f"- {each}" for each in report["not_measured"])]
    return "\n\n".join(lines) + "\n"


def _cells(row: dict[str, Any], columns: list[str]) -> list[str]:
    if "failed" in row:
        return [row["row"], f"failed: {row['failed']}", *[""] * (len(columns) - 1)]
    return [row["row"], *(str(row.get(column, "")) for column in columns)]


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def main() -> None:
    """Run the cases; print and write the tables. The exit status is 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small networks, few steps")
    parser.add_argument("--minutes", type=float, default=9.5, help="after which what is left is not measured")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="name of the two files, without an ending")
    parser.add_argument("--cases", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no GPU here; --device cpu --quick rehearses without one")
    if options.cases:
        run_cases(options.cases, options.rows, options.device, options.quick)
        return
    began = time.monotonic()
    report = about(options.device, options.quick) | orchestrate(options.device, options.quick, options.minutes)
    report["minutes"] = round((time.monotonic() - began) / 60, 2)
    text = as_markdown(report)
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    options.out.with_suffix(".json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    print(text)
    print(f"{options.out.with_suffix('.md')} and {options.out.with_suffix('.json')}, after {report['minutes']} minutes")
    broken = [row["row"] for row in report["rows"] if "failed" in row]
    if broken or any("process ended" in each for each in report["not_measured"]):
        sys.exit(f"Failed: {', '.join(broken) or 'a process'}")


if __name__ == "__main__":
    main()
