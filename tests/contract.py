"""What every compressible layer promises, as one call: ``run_layer_contract(PrunedConv2d, 6, 4, 3)``.

`run_graph_contract` holds the checks that compile and export: seconds where the others take milliseconds.
"""

import copy
import functools
import inspect
import io
import pickle
import unittest

import pytest
import torch
from torch import nn
from torch.autograd.profiler import profile
from torch.func import functional_call, grad

from qprune.functional import along
from qprune.layers import HOSTS, ChannelMask, Compressor, FakeQuant, LearnedQuant, learned_parameters
from qprune.layers.hosts import compress
from qprune.zoo import Add, Concat

STAGES = ("measuring", "active", "eval")


def run_layer_contract(cls, *args, **kwargs):
    """Check every promise on layers of ``cls``; of a bare host, with every slot filled by a mask and a quantizer."""
    _run(CHECKS, Subject(cls, args, kwargs))


def run_graph_contract(cls, *args, **kwargs):
    """Check that layers of ``cls``, compiled and exported, equal eager ones."""
    _run(GRAPH_CHECKS, Subject(cls, args, kwargs))


def _run(checks, subject):
    for check in checks:
        torch.manual_seed(0)
        check(subject)


class Subject:
    def __init__(self, cls, args, kwargs):
        self.cls, self.args, self.kwargs = cls, args, kwargs
        self.dense_cls = next(dense for dense, host in HOSTS.items() if issubclass(cls, host))
        known = inspect.signature(self.dense_cls.__init__).parameters
        self.dense_kwargs = {name: value for name, value in kwargs.items() if name in known}

    def dense(self):
        return self.dense_cls(*self.args, **self.dense_kwargs)

    def new(self):
        layer = self.cls(*self.args, **self.kwargs)
        for side in layer.sides if self.cls in HOSTS.values() else ():
            channels = layer.channels_at(side) or self.channels() * (2 if self.dense_cls is Concat else 1)
            layer.add_mask(side, channels=channels, importance="weight-l1" if side == "weight" else "activation-l1")
            layer.add_quant(side, 4, per="channel" if side == "weight" else "tensor")
        return layer

    def at(self, stage):
        """A layer that was measured, pruned to half and quantized, ready for a forward of ``stage``."""
        layer = self.new().train()
        for part in compressors(layer):
            part.measuring = True
        layer(*self.inputs())
        for part in compressors(layer):
            part.commit()
            part.measuring = stage == "measuring"
        if stage != "measuring":
            activate(layer)
        return layer.train(stage != "eval")

    def channels(self):
        layer = self.cls(*self.args, **self.kwargs)
        names = ("in_channels", "in_features", "num_features", "num_channels")
        return next((getattr(layer, name) for name in names if hasattr(layer, name)), 6)

    def inputs(self, n=3, h=7, w=9):
        sides = {"1": (h,), "3": (h, w, 4)}.get(self.dense_cls.__name__[-2:-1], (h, w))
        last = self.dense_cls in (nn.Linear, nn.LayerNorm)
        shape = (n, h, self.channels()) if last else (n, self.channels(), *sides)
        return tuple(torch.randn(shape) for _ in range(2 if self.dense_cls in (Add, Concat) else 1))


def compressors(layer):
    return [part for part in layer.modules() if isinstance(part, Compressor)]


def activate(layer):
    for part in compressors(layer):
        if isinstance(part, FakeQuant):
            part.active.fill_(True)
        else:
            part.score.copy_(torch.randperm(part.channels))
            part.refresh(0.5)


def weights(layer):
    """The parameters without those that quantizers learn."""
    learned = set(learned_parameters(layer))
    return [parameter for parameter in layer.parameters() if parameter not in learned]


def everything(layer):
    """Parameters and all buffers, the unsaved ones too."""
    return {name: tensor.clone() for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def run(layer, inputs):
    """Output, gradients and state after one forward and backward."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    y = layer(*inputs)
    y.square().sum().backward()
    grads = {f"gradient of input {i}": x.grad for i, x in enumerate(inputs)}
    eager = getattr(layer, "_orig_mod", layer)
    learned = set(learned_parameters(eager))  # which have a gradient only in training
    for name, p in eager.named_parameters():
        grads[f"gradient of {name}"] = torch.zeros_like(p) if p in learned and p.grad is None else p.grad
    return {"output": y.detach()} | grads | everything(eager)


def equals_dense_at_birth(subject):
    torch.manual_seed(3)
    dense = subject.dense()
    torch.manual_seed(3)
    layer = subject.new()
    for name, value in dense.state_dict().items():
        assert torch.equal(layer.state_dict()[name], value), f"{name}: another use of the random numbers"
    inputs = subject.inputs()
    for mode in (True, False):
        assert torch.equal(layer.train(mode)(*inputs), dense.train(mode)(*inputs))


def is_an_instance_of_its_torch_class(subject):
    assert isinstance(subject.new(), subject.dense_cls)


def loads_a_dense_state_dict_strictly(subject):
    dense, layer = subject.dense(), subject.at("eval")
    with unittest.TestCase().assertLogs("qprune.layers", "INFO") as logs:
        layer.load_state_dict(dense.state_dict())
    assert sum("starts fresh" in line for line in logs.output) == len(compressors(layer))
    inputs = subject.inputs()
    assert torch.equal(layer.eval()(*inputs), dense.eval()(*inputs))


def refuses_partial_compressor_state(subject):
    layer = subject.at("eval")
    saved = [name for name in layer.state_dict() if "_mask." in name or "_quant." in name]
    for name in saved:
        state = {other: value for other, value in layer.state_dict().items() if other != name}
        for strict in (True, False):
            with pytest.raises(RuntimeError, match=r"is incomplete.*missing.*Load all of its entries, or none"):
                layer.load_state_dict(state, strict=strict)


def keeps_the_shape_and_type_of_every_buffer(subject):
    def shapes(layer):
        return {name: (buffer.shape, buffer.dtype) for name, buffer in layer.named_buffers()}

    born = shapes(subject.new())
    for stage in STAGES:
        layer = subject.at(stage)
        layer(*subject.inputs(2, 8, 6))
        assert shapes(layer) == born


def survives_copying_and_saving(subject):
    layer, inputs = subject.at("eval"), subject.inputs()
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    loaded = subject.new().eval()
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for twin in (loaded, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert_same(twin.state_dict(), layer.state_dict())
        assert torch.equal(twin(*inputs), layer(*inputs))
        assert repr(twin) == repr(layer)


def follows_to_dtype(subject):
    for dtype in (torch.bfloat16, torch.float64):
        for stage in STAGES:
            layer = subject.at(stage)
            before = {name: b.clone() for part in compressors(layer) for name, b in part.named_buffers()}
            layer.to(dtype)
            assert_same(before, {name: b for part in compressors(layer) for name, b in part.named_buffers()})
            inputs = [x.to(dtype) for x in subject.inputs()]
            if _torch_lacks(lambda dtype=dtype, inputs=inputs: subject.dense().to(dtype)(*inputs)):
                continue
            y = layer(*inputs)
            assert y.dtype == dtype
            assert y.isfinite().all()
            for part in compressors(layer):
                part.commit()


def _torch_lacks(compute):
    """Whether the plain layer cannot compute this either: kernels and derivatives that torch does not have."""
    try:
        compute()
    except (NotImplementedError, RuntimeError) as error:
        return "not implemented" in str(error)
    return False


def compiles_whole_and_equals_eager(subject):
    for stage in STAGES:
        torch._dynamo.reset()
        layer, inputs = subject.at(stage), subject.inputs()
        compiled = torch.compile(copy.deepcopy(layer), fullgraph=True, backend="aot_eager")
        assert_same(run(layer, inputs), run(compiled, inputs))
    torch._dynamo.reset()


def exports_and_equals_eager(subject):
    layer, inputs = subject.at("eval"), subject.inputs()
    program = torch.export.export(layer, inputs)
    assert torch.equal(program.module()(*inputs), layer(*inputs))


def never_reads_back_from_the_device(subject):
    for stage in STAGES:
        layer, inputs = subject.at(stage), subject.inputs()
        with profile(use_cpu=True, use_kineto=False) as seen:  # Kineto writes to stderr
            layer(*inputs)
        assert not {event.name for event in seen.function_events} & {"aten::item", "aten::_local_scalar_dense"}


def eval_changes_nothing(subject):
    layer = subject.at("measuring").eval()  # measuring is still on: eval outranks it
    activate(layer)
    before = everything(layer)
    layer(*subject.inputs(2, 5, 6))
    assert_same(before, everything(layer))


def reading_changes_nothing(subject):
    layer = subject.at("active")
    before = everything(layer)
    for module in layer.modules():
        for name in dir(module):
            getattr(module, name)
    assert_same(before, everything(layer))


def prints_one_line_without_empty_slots(subject):
    for layer in (subject.new(), subject.at("active")):
        before = everything(layer)
        line = repr(layer)
        assert_same(before, everything(layer))
        assert "\n" not in line
        assert line.startswith(f"{subject.cls.__name__}(")
        for side in layer.sides:
            for kind in ("mask", "quant"):
                assert (f"{side}_{kind}=" in line) == (layer.slot(side, kind) is not None)


def takes_at_most_2_to_the_b_values_under_autocast(subject):
    for stage in STAGES:
        layer, inputs = subject.at(stage), subject.inputs()
        seen = {}
        for part in compressors(layer):
            part.register_forward_hook(lambda part, _, y, seen=seen: seen.update({part: y.detach()}))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(*(x.bfloat16() for x in inputs))
            expected = subject.dense()(*(x.bfloat16() for x in inputs)).dtype  # torch pools volumes in float32
        assert y.dtype == expected
        assert y.isfinite().all()
        for part, values in seen.items():
            if isinstance(part, FakeQuant) and stage != "measuring":
                whole = part.channels is None
                rows = values.reshape(1, -1) if whole else values.movedim(part.axis, 0).flatten(1)
                off_grid = subject.kwargs.get("numerics") == "paper"  # whose grid lacks 0
                assert max(row.unique().numel() for row in rows) <= 2**part.bits + off_grid


def keeps_channels_last(subject):
    if any(x.dim() != 4 for x in subject.inputs()):
        return
    for stage in STAGES:
        layer, dense = (net.to(memory_format=torch.channels_last) for net in (subject.at(stage), subject.dense()))
        inputs = [x.contiguous(memory_format=torch.channels_last) for x in subject.inputs()]
        if dense(*inputs).is_contiguous(memory_format=torch.channels_last):  # torch's InstanceNorm2d loses it
            assert layer(*inputs).is_contiguous(memory_format=torch.channels_last)


def takes_any_batch_and_image_size(subject):
    for stage in STAGES:
        layer, dense = subject.at(stage), subject.dense().train(stage != "eval")
        for n, h, w in [(1, 7, 9), (4, 12, 8), (2, 6, 11)]:
            inputs = subject.inputs(n, h, w)
            y = layer(*inputs)
            assert y.shape == dense(*inputs).shape
            assert y.isfinite().all()


def passes_finite_gradients_to_every_parameter(subject):
    for stage in STAGES:
        layer, inputs = subject.at(stage), [x.requires_grad_() for x in subject.inputs()]
        layer(*inputs).square().sum().backward()
        grads = [tensor.grad for tensor in (*inputs, *weights(layer))]
        assert all(grad.isfinite().all() for grad in grads)
        assert all((grad != 0).any() for grad in grads)
        for part in compressors(layer) if stage == "active" else ():
            assert all(parameter.grad.isfinite().all() for parameter in part.parameters())
            assert not isinstance(part, LearnedQuant) or part.step.grad.any()


def masked_channels_are_zero(subject):
    layer = subject.at("eval")
    if layer.output_mask is not None:
        y = layer(*subject.inputs()).movedim(layer.channel_axis, 0)
        keep = layer.output_mask.keep
        assert (y[~keep] == 0).all()


def takes_its_input_by_name(subject):
    if subject.dense_cls in (Add, Concat):
        return  # any number of inputs, which have no names
    for stage in STAGES:
        layer, (x,) = subject.at(stage), subject.inputs()
        twin = copy.deepcopy(layer)
        assert torch.equal(layer(input=x), twin(x))
        assert_same(everything(layer), everything(twin))


def calls_the_hooks_of_every_compressor(subject):
    for stage in STAGES:
        plain, inputs = subject.at(stage), subject.inputs()
        for kind in ("forward", "forward_pre", "full_backward", "full_backward_pre"):
            layer, called = copy.deepcopy(plain), []
            for part in compressors(layer):
                getattr(part, f"register_{kind}_hook")(lambda part, *_, called=called: called.append(part))
            y = layer(*(x.clone().requires_grad_() for x in inputs))
            y.sum().backward()
            assert set(called) == set(compressors(layer)), (stage, kind)
            assert torch.equal(y, plain(*inputs))


def _twice_differentiable(compute, tensors):
    """First gradients, and those of their squares."""
    tensors = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    first = torch.autograd.grad(compute(*tensors), tensors, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), tensors, allow_unused=True)
    return first, second


def has_second_gradients(subject):
    """Those of the dense layer with products for masks, and quantizers written as constants that are added."""
    if _torch_lacks(lambda: _two_gradients(subject.dense().double(), [x.double() for x in subject.inputs()])):
        return
    for stage in STAGES:
        layer, inputs = subject.at(stage).double(), [x.double() for x in subject.inputs()]
        ours = _two_gradients(layer, inputs)
        for part in compressors(layer):
            part.forward = functools.partial(_as_product if isinstance(part, ChannelMask) else _as_sum, part)
        if isinstance(layer, nn.ReLU | nn.ReLU6):  # they mask by themselves
            layer.forward = lambda x, at=layer: compress(subject.dense()(x), at.output_mask, at.output_quant)
        for a, b in zip(ours, _two_gradients(layer, inputs), strict=True):
            torch.testing.assert_close(
                a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item()
            )  # quantizers compute in float32


def _two_gradients(layer, inputs):
    inputs = [x.clone().requires_grad_() for x in inputs]
    tensors = [*inputs, *weights(layer)]
    first = torch.autograd.grad(layer(*inputs).pow(3).sum(), tensors, create_graph=True)
    second = torch.autograd.grad(sum(gradient.square().sum() for gradient in first), tensors)
    return *first, *second


def _as_product(mask, x):
    return x * along(mask.keep, x, mask.axis)


def _as_sum(quant, x, mask=None, **_):
    y = type(quant).forward(copy.deepcopy(quant), x.detach(), mask)
    if quant.gradient == "clipped" and quant.active:
        inside = (y - x).abs() < 0.51 * along(quant.scale, x, quant.axis)
        x = torch.where(inside, x, x.detach())
    return x + (y - x.detach())


def works_under_torch_func(subject):
    """First gradients are those of autograd, second ones too, and what the forward measures is the same."""
    twice = not _torch_lacks(lambda: _two_gradients(subject.dense(), subject.inputs()))
    for stage in STAGES:
        layer, inputs = subject.at(stage), subject.inputs()
        twin, parameters = copy.deepcopy(layer), dict(layer.named_parameters())
        if stage != "eval" and dict(subject.dense().named_buffers()):
            continue  # torch's own normalization writes its statistics, which torch.func does not allow

        def loss(parameters, *inputs, layer=layer):
            return functional_call(layer, parameters, inputs).square().sum()

        ours = grad(loss, argnums=tuple(range(1 + len(inputs))))(parameters, *inputs)
        state = run(twin, inputs)
        expected = ({name: state[f"gradient of {name}"] for name in parameters},
                    *(state[f"gradient of input {i}"] for i in range(len(inputs))))  # fmt: skip
        torch.testing.assert_close(ours, expected)
        assert_same(everything(layer), everything(twin))
        if stage != "measuring" and twice:
            x, rest = inputs[0].clone().requires_grad_(), inputs[1:]
            cubed = functools.partial(lambda layer, rest, x: layer(x, *rest).pow(3).sum(), layer, rest)
            first = torch.autograd.grad(cubed(x), x, create_graph=True)[0]
            nested = grad(lambda x, cubed=cubed: grad(cubed)(x).square().sum())(inputs[0])
            expected = torch.autograd.grad(first.square().sum(), x)[0]
            torch.testing.assert_close(nested, expected, rtol=1e-5, atol=1e-5 * max(1.0, expected.abs().max().item()))


def moves_with_a_state_that_is_assigned(subject):
    for stage in STAGES:
        ready = subject.at(stage)
        for state in (ready.state_dict(), subject.dense().state_dict()):
            with torch.device("meta"):
                assigned, filled = subject.new(), subject.new()
            assigned.load_state_dict(copy.deepcopy(state), assign=True)
            filled.to_empty(device="cpu").load_state_dict(state)
            inputs, layers = subject.inputs(), (subject.new(), assigned, filled)
            layers[0].load_state_dict(state)
            for layer in layers:
                assert {tensor.device.type for tensor in everything(layer).values()} == {"cpu"}
                for part in compressors(layer.train(ready.training)):
                    part.measuring = stage == "measuring"
            expected, *others = (run(layer, inputs) for layer in layers)
            for other in others:
                assert_same(other, expected)


class Around(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, *inputs):
        count = 2 if isinstance(self.layer, Add | Concat) else 1
        return self.layer(*(inputs[index] for index in range(count)))


class _Through(torch.fx.Tracer):
    def is_leaf_module(self, *_):
        return False


def can_be_traced_symbolically(subject):
    try:
        _Through().trace(Around(subject.dense()))
    except torch.fx.proxy.TraceError:
        return  # torch's own decide by the shape of their input
    layer, inputs = subject.at("eval"), subject.inputs()
    before = [x.clone() for x in inputs]
    assert torch.equal(torch.fx.symbolic_trace(Around(layer))(*inputs), layer(*inputs))
    assert all(map(torch.equal, inputs, before))


def takes_a_batch_of_no_images(subject):
    for stage in STAGES:
        layer, inputs = subject.at(stage), subject.inputs(n=0)
        try:
            shape = subject.dense().train(stage != "eval")(*inputs).shape
        except (IndexError, ValueError):
            continue  # torch's own refusal
        before = {name: value for name, value in everything(layer).items() if "_mask" in name or "_quant" in name}
        y = layer(*(x.requires_grad_() for x in inputs))
        assert y.shape == shape
        y.sum().backward()
        for part in compressors(layer):
            if not isinstance(part, FakeQuant) or part.axis != 0:  # a weight is there without any image
                assert all(torch.equal(value, before[name]) for name, value in _named(layer, part))
            part.commit()
        assert all(value.isfinite().all() for value in layer.state_dict().values() if value.is_floating_point())


def _named(layer, part):
    prefix = next(name for name, module in layer.named_modules() if module is part)
    return [(f"{prefix}.{name}", buffer) for name, buffer in part.named_buffers()]


CHECKS = [
    equals_dense_at_birth,
    is_an_instance_of_its_torch_class,
    loads_a_dense_state_dict_strictly,
    refuses_partial_compressor_state,
    keeps_the_shape_and_type_of_every_buffer,
    survives_copying_and_saving,
    follows_to_dtype,
    never_reads_back_from_the_device,
    eval_changes_nothing,
    reading_changes_nothing,
    prints_one_line_without_empty_slots,
    takes_at_most_2_to_the_b_values_under_autocast,
    keeps_channels_last,
    takes_any_batch_and_image_size,
    passes_finite_gradients_to_every_parameter,
    masked_channels_are_zero,
    takes_its_input_by_name,
    calls_the_hooks_of_every_compressor,
    has_second_gradients,
    works_under_torch_func,
    moves_with_a_state_that_is_assigned,
    takes_a_batch_of_no_images,
    can_be_traced_symbolically,
]

GRAPH_CHECKS = [compiles_whole_and_equals_eager, exports_and_equals_eager]
