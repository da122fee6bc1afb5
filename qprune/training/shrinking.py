"""`Shrinker`: cuts the channels of frozen masks out of a network while it trains."""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from qprune.costs.layer_cost import connections, positions
from qprune.errors import PlanError, ShrinkError
from qprune.flow import Flow, trace, unhooked_copy
from qprune.shrinking import Analysis, Cut, Mode, analyse, apply_cuts, cut_dead, rebuild, record
from qprune.shrinking.equality import assert_same
from qprune.shrinking.weights import WEIGHTED, input_count, output_count
from qprune.training import ranks
from qprune.training.driver import ScheduleDriver

log = logging.getLogger(__name__)

WHEN = ("never", "as-frozen", "after-pruning")
COST = 10  # what a cut takes, in steps of training; measured between 2 (mobilenetv2) and 15 (the smallest nets)
COST_COMPILED = 500  # the same where every cut is followed by compiling anew
DROPOUTS = (
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout,
    torch.dropout, torch.alpha_dropout, torch.feature_dropout, torch.feature_alpha_dropout,
)  # fmt: skip
CUT = "The network without its dropped channels"


class Shrinker:
    """Cuts channels of frozen masks out of a network in training, with all that belongs to them.

    Cut are parameters, statistics, compressors, the optimizer's moments and the moving average. Only channels go that
    are exactly zero and stay so, or that nobody reads, so training goes on as that of the masked network, to rounding.
    A mask that is not frozen yet keeps all of its channels.

    Parameters stay the same objects and get fewer entries, so whoever holds them (an optimizer, a list for clipping,
    hooks of theirs) holds them still; their gradients are cut alike, so a cut may come between backward passes whose
    gradients add up. Losses of earlier steps may be kept, but nothing can go backwards through them any more.

    When to cut is decided from steps and multiply-accumulates (MACs) alone: a cut is due once the MACs that were spent
    on dead channels since they died amount to what a cut takes, or, when the last mask is frozen, would do so before
    training ends. So cuts never cost more than they save, and a resumed training, or another process, cuts alike.

    Before each cut, one is made on a copy, and a forward pass of the network is compared with one of that copy, without
    dropout. Where they differ, all that the network's code counts keeps its channels (``cautious``, from then on); a
    difference then is an error, and nothing was cut. Comparing changes nothing that training goes on
    with: no statistics, no measurements, no random numbers.

    Args:
        net: the network.
        driver: of its masks.
        optimizer: over its parameters.
        example: an input; only its shape matters.
        steps: of the whole training.
        average: the moving average's network, if there is one.
        when: ``"as-frozen"``, or ``"after-pruning"``: once, when the last mask is frozen.
        channels_last: the layout of the weights.
        compiled: whether training steps are compiled, so that a cut takes longer.

    Raises:
        ValueError: for another ``when``.
        ShrinkError: for a network in DistributedDataParallel; and from `step`, if the optimizer's moments are not of
            their parameters' shapes, or the network would compute something else.

    Example:
        >>> shrinker = Shrinker(net, driver, sgd, example=torch.zeros(2, 3, 32, 32), steps=500)
        >>> events = driver.step()
        >>> shrinker.step(any(event.get("frozen") for event in events), images)
    """

    def __init__(
        self,
        net: nn.Module,
        driver: ScheduleDriver,
        optimizer: Optimizer,
        *,
        example: Any,
        steps: int,
        average: nn.Module | None = None,
        when: str = "as-frozen",
        channels_last: bool = True,
        compiled: bool = False,
    ) -> None:
        if when not in WHEN[1:]:
            raise ValueError(f"when must be one of {', '.join(WHEN[1:])}; received {when!r}")
        if isinstance(net, DistributedDataParallel):
            raise ShrinkError(
                "net is a DistributedDataParallel, which exchanges gradients of the shapes that it was made with. Give "
                "the driver and the shrinker net.module, and wrap that anew whenever shrinker.step returns True."
            )
        self.net, self.driver, self.optimizer, self.average = net, driver, optimizer, average
        self.example, self.steps, self.when, self.channels_last = example, steps, when, channels_last
        self.cost = COST_COMPILED if compiled else COST
        self.wasted = 0.0  # MACs spent on dead channels since they died, in steps of the present network
        self.excess = 0.0  # their share of the MACs of a step
        self.cautious = False  # whether all that was counted in the network keeps its channels, after a difference
        self._flow: Flow | None = None

    def step(self, frozen: bool, inputs: Any = None) -> bool:
        """Cut if it is due; to be called after `ScheduleDriver.step`, and once before the first step.

        Args:
            frozen: whether that froze a mask; or whether any may be frozen, before the first step.
            inputs: what the network was given in this step, a tensor or a tuple of arguments. With these it is compared
                in the mode that it is in, under the autocast that is on here; without, in eval mode, with random
                numbers of the shape of ``example``.

        Returns:
            whether anything was cut.
        """
        analysis = self._analyse() if frozen else None
        if analysis is not None and self._flow is not None:  # the analysis is of one
            before = macs(self._flow)
            self.excess = 1 - macs(self._flow, analysis.kept) / before if before else 0.0
        if not self._due():
            self.wasted += self.excess
            return False
        self._check_moments()
        analysis = analysis or self._analyse()
        error = self._difference(analysis.cuts, inputs)
        # Python hands a number of channels on without a word in some places; all processes take care alike
        if ranks.agree(error is not None)[0] and not self.cautious:
            self.cautious, self._flow = True, None
            analysis = self._analyse()
            error = self._difference(analysis.cuts, inputs)
        if error is not None:
            raise ShrinkError(f'{error} Or train with shrink = "never"; nothing was cut.') from error
        self._cut(analysis)
        return bool(analysis.cuts)

    def _due(self) -> bool:
        if not self.excess:
            return False
        if self.wasted >= self.cost and self.when == "as-frozen":
            return True
        left = self.steps - self.driver.steps_done
        return self.driver.all_frozen and self.wasted + self.excess * left >= self.cost

    def _analyse(self) -> Analysis:
        if self._flow is None:
            flow = trace(self.net, self.example)
            self._flow = flow.cautious() if self.cautious else flow
        settled = self.driver.settled_masks()
        with self._without_autocast():
            return analyse(self.net, self._flow, Mode(settled=settled.__contains__, training=True))

    def _difference(self, cuts: Mapping[str, Cut], inputs: Any) -> ShrinkError | None:
        """Compare copies of the network and of its average before and after the cut; the error if they differ."""
        try:
            self._compare(self.net, cuts, inputs)
            if self.average is not None:
                self._compare(self.average, cuts, None)
        except ShrinkError as error:
            return error
        return None

    def _compare(self, net: nn.Module, cuts: Mapping[str, Cut], inputs: Any) -> None:
        before, after = unhooked_copy(net), unhooked_copy(net)
        apply_cuts(after, cuts)
        example = self.example
        if inputs is not None:
            example = inputs
            _stay_in_mode(before)
            _stay_in_mode(after)
        with _WithoutDropout():
            try:
                assert_same(before, after, example, what=CUT)
            except ShrinkError:
                if not self._same_in_double(before, after, example):
                    raise

    def _same_in_double(self, before: nn.Module, after: nn.Module, example: Any) -> bool:
        # normalizing over few values, or computing in few bits, makes much of rounding: so more bits have the last word
        try:
            with self._without_autocast():
                doubled = tree_map_only(Tensor, lambda x: x.double() if x.is_floating_point() else x, example)
                assert_same(before.double(), after.double(), doubled)
        except ShrinkError:
            return False
        return True

    def _without_autocast(self) -> AbstractContextManager[Any]:
        device = next((parameter.device.type for parameter in self.net.parameters()), "cpu")
        return torch.autocast(device, enabled=False)

    def _cut(self, analysis: Analysis) -> None:
        for parameter, take in apply_cuts(self.net, analysis.cuts).items():
            for name, moment in self._moments(parameter).items():
                self.optimizer.state[parameter][name] = self._laid_out(take(moment))
        if self.average is not None:
            apply_cuts(self.average, analysis.cuts)
        self._settle()
        log.info(
            "Step %d: %.0f %% of the network's multiplications were cut.", self.driver.steps_done, 100 * self.excess
        )
        self.wasted = self.excess = 0.0
        torch.clear_autocast_cache()  # of weights in few bits, which are those before the cut

    def _settle(self) -> None:
        for net in filter(None, (self.net, self.average)):
            for parameter in net.parameters():
                parameter.data = self._laid_out(parameter.data)
                if parameter.grad is not None:
                    parameter.grad = self._laid_out(parameter.grad)
        self.driver.refit()
        self._flow = None

    def _laid_out(self, tensor: Tensor) -> Tensor:
        """The same values, laid out as in a tensor that is made at this size."""
        if tensor.dim() != 4:
            return tensor
        return tensor.clone(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)

    def _moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        state = self.optimizer.state.get(parameter, {})
        return {name: value for name, value in state.items() if isinstance(value, Tensor) and value.numel() > 1}

    def _check_moments(self) -> None:
        for parameter in self.net.parameters():
            for name, moment in self._moments(parameter).items():
                if moment.shape != parameter.shape:
                    raise ShrinkError(
                        f"{type(self.optimizer).__name__} keeps {name} of shape {tuple(moment.shape)} for a parameter "
                        f'of shape {tuple(parameter.shape)}: they cannot be cut alike. Train with shrink = "never".'
                    )

    def finish(self, net: nn.Module) -> nn.Module:
        """Make the cuts that must wait for the end of training: constants become biases, and channels that are zero go.

        Args:
            net: the trained network. It is not touched.

        Returns:
            a smaller copy; or ``net``, with a warning, if such a copy would compute something else.
        """
        try:
            try:
                return self._finished(net, self.cautious)
            except ShrinkError:
                return self._finished(net, cautious=True)
        except (PlanError, ShrinkError) as error:
            log.warning("The trained network keeps all channels that training left: %s", error)
            return net

    def _finished(self, net: nn.Module, cautious: bool) -> nn.Module:
        small = unhooked_copy(net)
        cut_dead(small, self.example, cautious=cautious)
        assert_same(net, small, self.example, what=CUT)
        return small

    def state_dict(self) -> dict[str, Any]:
        """The cuts so far, and the counters that decide when the next one is due."""
        decisive = {"wasted": self.wasted, "excess": self.excess, "cautious": self.cautious}
        return {"cuts": record(self.net)} | decisive

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Repeat the recorded cuts, before the parameters and the optimizer's moments are loaded.

        Raises:
            CheckpointError: if the cuts are of another network.
        """
        for net in filter(None, (self.net, self.average)):
            rebuild(net, state["cuts"], "The checkpoint")
        self._settle()
        self.wasted, self.excess = state["wasted"], state["excess"]
        self.cautious = state.get("cautious", False)  # some files do not know it


class _WithoutDropout(TorchFunctionMode):
    """Dropout passes values on: a network with fewer channels would draw other random numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in DROPOUTS:
            return args[0] if args else kwargs["input"]
        return func(*args, **(kwargs or {}))


def _stay_in_mode(net: nn.Module) -> None:
    """Keep each layer of a copy in its present training or eval mode, whatever mode is set later."""
    # statistics that processes exchange would make all of them wait, where one compares once more
    modes = {part: part.training and not isinstance(part, nn.SyncBatchNorm) for part in net.modules()}

    def restore(*_: Any) -> None:
        for part, training in modes.items():
            part.training = training

    net.register_forward_pre_hook(restore)


def macs(flow: Flow, kept: Mapping[str, tuple[Tensor, Tensor]] | None = None) -> int:
    """Multiply-accumulates of convolutions and linear layers, of kept output and input channels by path, or of all."""
    total = 0
    for call in flow.calls:
        layer: Any = call.layer
        if isinstance(layer, WEIGHTED):
            counts = output_count(layer), input_count(layer)
            everything = [torch.ones(count, dtype=torch.bool) for count in counts]
            outputs, inputs = (kept or {}).get(str(call.path)) or everything
            total += connections(layer, inputs, outputs) * positions(layer, call)
    return total
