"""Tasks: the loss and the metrics of a kind of problem, one file each."""

from qprune.tasks.classification import Classification
from qprune.tasks.create import create, make_task, names, needed_kind
from qprune.tasks.cyclegan import CycleGAN
from qprune.tasks.distilled import Distilled, Taught, softened_divergence
from qprune.tasks.padding import run_padded
from qprune.tasks.pictures import View, overlay, side_by_side, to_pixels, write_png
from qprune.tasks.pix2pix import Pix2Pix
from qprune.tasks.segmentation import Segmentation
from qprune.tasks.task import Task
from qprune.tasks.translation import Translated

__all__ = [
    "Classification", "CycleGAN", "Distilled", "Pix2Pix", "Segmentation", "Task", "Taught", "Translated", "View",
    "create", "make_task", "names", "needed_kind", "overlay", "run_padded", "side_by_side", "softened_divergence",
    "to_pixels", "write_png",
]  # fmt: skip
