"""How long one image takes in ONNX Runtime: the exported networks of runs, side by side.

They take turns within one measurement, so that a drifting machine slows all of them alike. Medians, and their ratios to
the first.

    cd benchmarks
    python trained_latency.py RUN RUN ... [--threads 1] [--rounds 99]
"""

import argparse
import sys

import onnxruntime
import torch

from qprune.costs import forward_times
from qprune.exporting import OnnxModel, write_network
from qprune.tables import table
from qprune.training import open_model, runs_root


def main(arguments: list[str]) -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, or its name below runs")
    parser.add_argument("--threads", type=int, default=1, help="of the runtime; default: 1")
    parser.add_argument("--rounds", type=int, default=99, help="how often each takes its turn; default: 99")
    options = parser.parse_args(arguments)
    opened = {run: open_model(run, runs_root(None)) for run in options.runs}
    x = torch.randn(1, *opened[options.runs[0]].shape)
    files = {run: write_network(each.net, x).model.SerializeToString() for run, each in opened.items()}
    models = {run: OnnxModel(file, threads=options.threads) for run, file in files.items()}
    taken = forward_times(models, x, options.rounds)
    first = taken[options.runs[0]]
    lines = [[run, f"{1000 * seconds:.2f} ms", f"{seconds / first:.2f}"] for run, seconds in taken.items()]
    sys.stdout.write(table(("run", "one image", "ratio"), lines, right="lrr") + "\n")
    sys.stdout.write(f"\n{options.threads} thread(s), onnxruntime {onnxruntime.__version__}, medians\n")


if __name__ == "__main__":
    main(sys.argv[1:])
