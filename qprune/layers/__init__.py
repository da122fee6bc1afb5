"""Drop-in layers that can be pruned and quantized, and the compressors inside them."""

from qprune.layers.activations import CompressedLeakyReLU, CompressedReLU, CompressedReLU6
from qprune.layers.aligned import ALIGNED, CHANNELWISE, Align, Aligned, bare
from qprune.layers.all_hosts import HOSTS, CompressedConv1d, CompressedConv3d, CompressedLayerNorm
from qprune.layers.apart import Apart, names_apart, take_apart
from qprune.layers.bias import BiasQuant
from qprune.layers.compressor import Compressor
from qprune.layers.hosts import (
    CompressedAdaptiveAvgPool2d,
    CompressedAdd,
    CompressedAvgPool2d,
    CompressedBatchNorm2d,
    CompressedConcat,
    CompressedConv2d,
    CompressedConvTranspose2d,
    CompressedInstanceNorm2d,
    CompressedLinear,
    CompressedWeight,
)
from qprune.layers.in_place import cut_parameter, in_place_of
from qprune.layers.learned import LearnedQuant, learned_parameters, make_quant
from qprune.layers.mask import ChannelMask, commit_masks, follow_sources
from qprune.layers.quantizer import FakeQuant, commit_all
from qprune.layers.ranges import Ranges, ranges_of
from qprune.layers.ready import ReadyWeights
from qprune.layers.recomputing import recompute_in_backward
from qprune.layers.scores import Scores
from qprune.layers.sites import Site, sites
from qprune.layers.slots import Compressed
from qprune.layers.strips import Commits
from qprune.layers.weighted import (
    PrunedConv2d,
    PrunedConvTranspose2d,
    PrunedLinear,
    PrunedQuantConv2d,
    PrunedQuantConvTranspose2d,
    PrunedQuantLinear,
    QuantConv2d,
    QuantConvTranspose2d,
    QuantLinear,
)

__all__ = [
    "ALIGNED", "CHANNELWISE", "HOSTS", "Align", "Aligned", "Apart", "BiasQuant", "ChannelMask", "Commits", "Compressed",
    "CompressedAdaptiveAvgPool2d", "CompressedAdd", "CompressedAvgPool2d", "CompressedBatchNorm2d",
    "CompressedConcat", "CompressedConv1d", "CompressedConv2d", "CompressedConv3d", "CompressedConvTranspose2d",
    "CompressedInstanceNorm2d", "CompressedLayerNorm", "CompressedLeakyReLU", "CompressedLinear", "CompressedReLU",
    "CompressedReLU6", "CompressedWeight", "Compressor", "FakeQuant", "LearnedQuant", "PrunedConv2d",
    "PrunedConvTranspose2d", "PrunedLinear", "PrunedQuantConv2d", "PrunedQuantConvTranspose2d", "PrunedQuantLinear",
    "QuantConv2d", "QuantConvTranspose2d", "QuantLinear", "Ranges", "ReadyWeights", "Scores", "Site", "bare",
    "commit_all", "commit_masks", "cut_parameter", "follow_sources", "in_place_of", "learned_parameters", "make_quant",
    "names_apart", "ranges_of", "recompute_in_backward", "sites", "take_apart",
]  # fmt: skip
