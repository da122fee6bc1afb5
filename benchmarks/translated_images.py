"""What translation runs make of the same test images, side by side, to look at.

A row for each image: the image, what each run makes of it, in the order in which they are named, and an image of the
domain that it is translated to.

    cd benchmarks
    python translated_images.py RUN RUN ... [--images 4] [--enlarged 3] [--out translated.png]
"""

import argparse
import sys
from pathlib import Path

import torch

from qprune import predict
from qprune.tasks.pictures import side_by_side, to_pixels, write_png
from qprune.training import few_samples, open_model, runs_root, view_of


def main(arguments: list[str]) -> None:
    """Write the picture, and what its columns are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, or its name below runs")
    parser.add_argument("--images", type=int, default=4, help="how many, spread over the test images; default: 4")
    parser.add_argument("--enlarged", type=int, default=3, help="pixels for each pixel; default: 3")
    parser.add_argument("--out", type=Path, default=Path("translated.png"), help="the file; default: translated.png")
    options = parser.parse_args(arguments)
    opened = [open_model(run, runs_root(None)) for run in options.runs]
    view = view_of(opened[0].splits())
    a, b = few_samples(opened[0].split("test"), options.images)
    columns = [to_pixels(images, view.mean, view.std) for images in (a, *(predict(each.net, a) for each in opened), b)]
    picture = torch.cat([side_by_side(*row) for row in zip(*columns, strict=True)], dim=-2)
    for dim in (-1, -2):
        picture = picture.repeat_interleave(options.enlarged, dim)
    write_png(options.out, picture)
    sys.stdout.write("\n".join(["the image", *options.runs, "an image of the other domain"]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
