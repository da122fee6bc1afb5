"""Keep small trained networks of docs/results.md in pretrained/, each with a card, so that nobody trains them anew.

    cd benchmarks
    python pretrained.py RUN [RUN ...]

A run is named by its folder or by its name below ``runs``; it goes to ``pretrained/NAME``, by the name of its spec.
"""

import shutil
import sys
from pathlib import Path

from attrs import evolve, frozen

from qprune.run_record import RunRecord
from qprune.spec import spec_to_toml
from qprune.tables import short
from qprune.training.checkpoint import save
from qprune.training.opening import load_model

PLACE = Path(__file__).parents[1] / "pretrained"
LARGEST = 2_000_000  # bytes of one network


@frozen
class Images:
    """What is said of the images that a network has learned from."""

    what: str
    licence: str


IMAGES = {
    "camvid": Images(
        "CamVid, street scenes of 11 classes: 367 training images, scored on 233 test images",
        "CC BY-NC 4.0: for research, not for commercial use",
    ),
    "cifar10": Images(
        "CIFAR-10, photos of 10 classes, 32x32, as JPEG copies: scored on 10,000 test photos",
        "none is stated by its authors; made for research",
    ),
}


def main(runs: list[str]) -> None:
    """Copy each run's network, spec and report, and write its card."""
    for name in runs:
        record = RunRecord.open(name)
        folder = PLACE / record.name
        folder.mkdir(parents=True, exist_ok=True)
        spec = evolve(record.spec, data=evolve(record.spec.data, root=None))  # images lie elsewhere on each machine
        save(folder / "model.pt", load_model(record.run.model) | {"spec": spec_to_toml(spec)})
        (folder / "spec.toml").write_text(spec_to_toml(spec))
        shutil.copyfile(record.run.report, folder / "report.json")
        (folder / "README.md").write_text(card(RunRecord.open(folder)))
        size = (folder / "model.pt").stat().st_size
        if size > LARGEST:
            raise SystemExit(f"{folder}: model.pt has {short(size, 'B')}; no more than {short(LARGEST, 'B')} are kept.")


def card(record: RunRecord) -> str:
    """What the network is, what it has learned from, its score and costs, and how it is used."""
    spec, costs, images = record.spec, record.facts["costs"], IMAGES[record.spec.data.name]
    trained = f"Made by `qprune fit ../pretrained/{record.name}/spec.toml --chain --data FOLDER` in `benchmarks`."
    return f"""# {record.name}

{spec.about}

| | |
| --- | --- |
| network | `{spec.model.arch}`, {spec.task.name} |
| images | {images.what} |
| licence of the images | {images.licence} |
| {record.monitor} on test images | {record.score:.4f} |
| MACs | {short(costs["macs_kept"])} of {short(costs["macs"])} |
| parameters | {short(costs["parameters_kept"])} of {short(costs["parameters"])} |
| weights, packed | {short(costs["packed_bytes"], "B")} |

{trained}

In the folder above `pretrained/`:

```
qprune evaluate pretrained/{record.name} --data FOLDER
qprune export pretrained/{record.name}
```

In a spec, `init = "pretrained/{record.name}"` starts from it.
"""


if __name__ == "__main__":
    main(sys.argv[1:])
