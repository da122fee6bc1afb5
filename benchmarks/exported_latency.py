"""How long one image takes in ONNX Runtime: networks that qprune exported, beside what users have without it.

For each network of the zoo, at the paper's input size:

- `eager`: the dense float32 network in PyTorch, channels last;
- `dense`: the same, written as an ONNX file with its normalizations folded, in ONNX Runtime;
- `exported`: 75 % pruned activations (random masks of a fixed seed), 8-bit weights and activations with
  `complete = true` (ranges of one random batch), shrunk and written as an ONNX file;
- `quarter`: the yardstick, a dense network with a quarter of the channels, written as an ONNX file and quantized by
  ONNX Runtime's own tool (static, QDQ, per channel).

With --couple also `coupled`: as `exported`, but the masks agree where their channels meet (`couple = true`), so that
nothing is gathered.

They take turns within one run, so that a drifting machine slows all of them alike. The last columns count the operators
of the exported file that ONNX Runtime executed on integers, on real numbers, and between the two. With --profile a
second table says by kind which of them took most of its time, each with what its first input holds.

    python benchmarks/exported_latency.py [--networks mobilenetv2 unet] [--batch 1] [--threads 2] [--rounds 20]
        [--couple] [--profile]
"""

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from networks import NETWORKS, dense_network, masked_network
from torch import Tensor, nn

import qprune
from qprune.costs import forward_times
from qprune.exporting import OnnxModel, write_network
from qprune.spec import read_spec
from qprune.tables import table

CALIBRATION = 4  # images of which ranges are measured
OPERATORS = 8  # kinds that --profile shows
PROFILE = ("network", "operator (reads)", "how many", "ms", "share")
RATIOS = (("exported", "quarter"), ("eager", "exported"), ("dense", "exported"))
COUPLED = (("coupled", "exported"), ("coupled", "quarter"))
# where nothing meets in sums: masks agree by themselves in the U-Net; in DenseNet what each layer adds to the
# concatenation is dropped where it is made, for all readers
COUPLING: dict[str, list[str]] = {
    "unet": [],
    "densenet121": [
        'prune.0.sites=[{paths = ["stem", "*.conv2", "transition*.conv"], types = ["Conv2d"], at = "output"}, '
        '{paths = ["*.act2"], types = ["ReLU"], at = "output"}]'
    ],
}
COUNTS = ("integer", "float", "between")


def networks(name: str, couple: bool) -> dict[str, nn.Module]:
    """Dense, pruned and quantized, and with a quarter of the channels; with coupled masks, if that is asked for."""
    folder, size = NETWORKS[name]
    torch.manual_seed(0)
    images = [torch.randn(CALIBRATION, *size)]

    def joint(*overrides: str) -> nn.Module:
        return qprune.calibrate(masked_network(read_spec(f"{folder}/a75_w8a8", ["complete=true", *overrides])), images)

    nets = {
        "dense": dense_network(f"{folder}/baseline"),
        "exported": joint(),
        "quarter": dense_network(read_spec(f"{folder}/baseline", ["model.width=0.25"])),
    }
    return nets | {"coupled": joint(*COUPLING.get(name, ["prune.0.couple=true"]))} if couple else nets


def write(nets: dict[str, nn.Module], size: tuple[int, ...], folder: Path) -> dict[str, Path]:
    """Their files; that of the quarter is quantized by the runtime's own tool."""
    files = {name: folder / f"{name}.onnx" for name in nets}
    for name, net in nets.items():
        files[name].write_bytes(write_network(net, torch.zeros(1, *size)).model.SerializeToString())
    quantize(files["quarter"], size)
    return files


def quantize(file: Path, size: tuple[int, ...]) -> None:
    """Replace a file by what ONNX Runtime's own tool makes of it, as its documentation recommends."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = file.with_suffix(".prepared.onnx")
    quant_pre_process(file, prepared, skip_symbolic_shape=True)  # it cannot follow DepthToSpace of free sizes
    options: dict[str, Any] = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(prepared, file, RandomImages(size), quant_format=QuantFormat.QDQ, per_channel=True, **options)


class RandomImages:
    """Images to calibrate on, as the runtime's tool reads them (``CalibrationDataReader``)."""

    def __init__(self, size: tuple[int, ...]) -> None:
        self.images = iter([{"x": torch.randn(1, *size).numpy()} for _ in range(CALIBRATION)])

    def get_next(self) -> dict[str, Any] | None:
        """The next image, or None behind the last."""
        return next(self.images, None)


def profile(file: Path, x: Tensor, threads: int, runs: int = 10) -> list[list[str]]:
    """Which kinds of operators take most of the time: kind and what it reads, how many, ms of one run, share."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    options.profile_file_prefix = str(file.with_suffix(""))
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    for _ in range(runs):
        session.run(None, {session.get_inputs()[0].name: x.numpy()})
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: Counter[str] = Counter()
    nodes: dict[str, set[str]] = {}
    for event in (event for event in events if event["name"].endswith("_kernel_time")):
        kind = f"{event['args']['op_name']} ({_read(event['args'])})"
        times[kind] += event["dur"]
        nodes.setdefault(kind, set()).add(event["name"])
    total = times.total()
    return [[kind, str(len(nodes[kind])), f"{time / runs / 1000:.3f}", f"{100 * time / total:.1f} %"]
            for kind, time in times.most_common(OPERATORS)]  # fmt: skip


def _read(facts: dict[str, Any]) -> str:
    return next((name for each in facts["input_type_shape"] for name in each), "nothing")


def measure(
    name: str, batch: int, threads: int, rounds: int | None, profiled: bool, couple: bool
) -> tuple[list[str], list[list[str]]]:
    """A line of the table, and the lines of the second one."""
    nets = networks(name, couple)
    size = NETWORKS[name][1]
    x = torch.randn(batch, *size)
    with tempfile.TemporaryDirectory() as folder:
        files = write(nets, size, Path(folder))
        models = {each: OnnxModel(file, threads=threads) for each, file in files.items()}
        eager = nets["dense"].to(memory_format=torch.channels_last)
        taken = forward_times({"eager": eager, **models}, x.contiguous(memory_format=torch.channels_last), rounds)
        watched = OnnxModel(files["exported"], threads=threads, profile=True)
        watched(x)
        operators = watched.operators()
        lines = [[name, *line] for line in profile(files["exported"], x, threads)] if profiled else []
    line = [
        name,
        *(f"{1000 * seconds:.2f} ms" for seconds in taken.values()),
        *(f"{taken[one] / taken[other]:.2f}" for one, other in ratios(couple)),
        *(str(sum(each.values())) for each in (operators.integer, operators.real, operators.between)),
    ]
    return line, lines


def ratios(couple: bool) -> tuple[tuple[str, str], ...]:
    """Which times are divided by which."""
    return (*RATIOS, *COUPLED) if couple else RATIOS


def header(couple: bool) -> tuple[str, ...]:
    """The names of the columns."""
    times = ("eager", "dense", "exported", "quarter", *["coupled"] * couple)
    return ("network", *times, *(f"{one}/{other}" for one, other in ratios(couple)), *COUNTS)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), metavar="NAME",
                        help=f"of {', '.join(NETWORKS)}; default: all")  # fmt: skip
    parser.add_argument("--batch", type=int, default=1, help="images at a time; default: 1")
    parser.add_argument("--threads", type=int, default=2, help="of each runtime; default: 2")
    parser.add_argument("--rounds", type=int, help="default: as many as take about 5 seconds")
    parser.add_argument("--profile", action="store_true", help="say which operators take the time")
    parser.add_argument("--couple", action="store_true", help="also with masks that agree where channels meet")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines, operators = [], []
    for name in options.networks:
        line, kinds = measure(name, options.batch, options.threads, options.rounds, options.profile, options.couple)
        lines.append(line)
        operators += kinds
        print(f"{name} is measured", flush=True)
    runtimes = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    print(f"\nbatch {options.batch}, {options.threads} threads, {runtimes}: medians\n")
    columns = header(options.couple)
    print(table(columns, lines, right="l" + "r" * (len(columns) - 1)))
    if options.profile:
        print(f"\nOperators of the exported files\n\n{table(PROFILE, operators, right='llrrr')}")


if __name__ == "__main__":
    main()
