"""Data sets by name and by folder, split and seeded so that a run can be repeated."""

from qprune.data.augment import build_augment
from qprune.data.datasets import ImageSet, SeededSet
from qprune.data.info import IGNORE, NAMED, DataInfo
from qprune.data.inputs import read_inputs
from qprune.data.loaders import EpochSampler, eval_loader, train_loader
from qprune.data.own import Splits, wrap_data
from qprune.data.pair_set import PairSet, colour
from qprune.data.seeds import mix
from qprune.data.splits import describe, load_data
from qprune.data.workers import LoaderError, LoaderWatch, lost_loaders_told

__all__ = [
    "IGNORE",
    "NAMED",
    "DataInfo",
    "EpochSampler",
    "ImageSet",
    "LoaderError",
    "LoaderWatch",
    "PairSet",
    "SeededSet",
    "Splits",
    "build_augment",
    "colour",
    "describe",
    "eval_loader",
    "load_data",
    "lost_loaders_told",
    "mix",
    "read_inputs",
    "train_loader",
    "wrap_data",
]
