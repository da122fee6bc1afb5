"""Data sets by name and by folder, split and seeded so that a run can be repeated."""

from qprune.data.augment import build_augment
from qprune.data.datasets import ImageSet, SeededSet
from qprune.data.info import IGNORE, NAMED, DataInfo, usual_statistics
from qprune.data.inputs import read_inputs
from qprune.data.loaders import EpochSampler, eval_loader, train_loader
from qprune.data.opening import with_download
from qprune.data.painting import colour
from qprune.data.pair_set import PairSet
from qprune.data.presets import weights_of, with_presets
from qprune.data.seeds import mix
from qprune.data.splits import describe, load_data
from qprune.data.user_data import Splits, wrap_data
from qprune.data.user_facts import class_names, count_classes, image_shape, some_images
from qprune.data.workers import LoaderError, LoaderWatch, explaining_lost_loaders

__all__ = [
    "IGNORE", "NAMED", "DataInfo", "EpochSampler", "ImageSet", "LoaderError", "LoaderWatch", "PairSet", "SeededSet",
    "Splits", "build_augment", "class_names", "colour", "count_classes", "describe", "eval_loader",
    "explaining_lost_loaders", "image_shape", "load_data", "mix", "read_inputs", "some_images", "train_loader",
    "usual_statistics", "weights_of", "with_download", "with_presets", "wrap_data",
]  # fmt: skip
