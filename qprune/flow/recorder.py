"""`Recorder`: writes down the calls of a network that runs."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from qprune.flow.calls import Call, Flow, Given
from qprune.flow.counting import Counts
from qprune.flow.failing import Failed
from qprune.flow.layouts import laid_out
from qprune.flow.memory import Memory
from qprune.flow.meta_functions import quick
from qprune.flow.sizes import READERS


@frozen(eq=False)
class _Entry:
    """The arguments of a call, noted before it runs, since operations in place return their argument."""

    arguments: Any
    given: Any
    versions: list[tuple[Tensor, int]]

    def tensors(self) -> list[Tensor]:
        return [tensor for tensor, _ in self.versions]

    def written(self) -> list[Tensor]:
        return [tensor for tensor, version in self.versions if tensor._version != version]


class Recorder(TorchFunctionMode):
    """Notes each call of a leaf layer, and each tensor function outside of one."""

    def __init__(self, leaves: dict[str, nn.Module], originals: dict[str, nn.Module]) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.memory = Memory()
        self.watched: dict[int, str] = {}
        self.borrowed: dict[str, str] = {}
        self.depth = 0
        self.inside: list[str] = []  # paths of the modules that are running
        self.failed: Failed | None = None
        self.originals, self.leaves = originals, leaves.keys()
        self.counts = Counts(leaves, self._where)
        self.entered: set[str] = set()  # paths of the modules that ran
        self.read: set[int] = set()  # tensors that a function was given, by their ids
        held = [(path, tensor) for path, leaf in leaves.items() for tensor in (*leaf.parameters(), *leaf.buffers())]
        self.owners = {id(tensor): path for path, tensor in held}
        self.handles = [handle for path, leaf in leaves.items() for handle in self._watch(path, leaf, originals[path])]

    def _where(self) -> str | None:
        if self.depth:
            return None
        path = self.inside[-1] if self.inside else ""
        kind = type(self.originals[path]).__name__
        return f"the forward of {kind} ({path})" if path else f"the forward of {kind}"

    def _watch(self, path: str, leaf: nn.Module, original: nn.Module) -> tuple[Any, Any]:
        entries: list[_Entry] = []

        def enter(_: nn.Module, *arguments: Any) -> Any:
            arguments = self.counts.used_up(arguments, path)
            self.depth += 1
            self.inside.append(path)
            self.entered.add(path)
            with torch._C.DisableTorchFunction():  # what is asked of tensors here is no call of the network
                entries.append(self._entry(arguments))
            return arguments

        def leave(_: nn.Module, arguments: Any, kwargs: Any, result: Any) -> Any:
            result = self._apart(arguments, result)
            self.depth -= 1
            self.inside.pop()
            entry = entries.pop()
            if self.depth == 0:
                with torch._C.DisableTorchFunction():
                    self._note(path, original, None, entry, result)
            return result

        return (
            leaf.register_forward_pre_hook(enter, with_kwargs=True),
            leaf.register_forward_hook(leave, with_kwargs=True),
        )

    def watch_modules(self, shadow: nn.Module) -> None:
        """Note which module's code is running, and what goes into and comes out of those whose originals have hooks."""
        for path, module in shadow.named_modules():
            if module._forward_hooks or isinstance(module, torch.jit.ScriptModule):
                continue  # a leaf is a call, which tells its layer; compiled code takes no hooks
            original = self.originals[path]
            if original._forward_hooks or original._forward_pre_hooks:
                self.handles.append(module.register_forward_hook(self._boundary(path), with_kwargs=True))
                self.handles.append(module.register_forward_pre_hook(self._boundary(path), with_kwargs=True))
            self.handles.append(module.register_forward_pre_hook(self._enters(path)))
            self.handles.append(module.register_forward_hook(self._leaves(path)))

    def _enters(self, path: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            self.inside.append(path)
            self.entered.add(path)

        return enter

    def _leaves(self, path: str) -> Callable[..., None]:
        def leave(*_: Any) -> None:
            while self.inside.pop() != path:  # modules that an error left, which the network's own code caught
                pass

        return leave

    def _boundary(self, path: str) -> Callable[..., None]:
        def see(_: nn.Module, *tensors: Any) -> None:
            if self.depth == 0:
                self.watched |= dict.fromkeys((maker for maker in self.sources(tensors) if maker >= 0), path)

        return see

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        self.read.update(_parameters((args, options)))
        if self.depth:
            return self._run(func, args, options)
        if func in READERS and args:
            owner, maker = self.owners.get(id(args[0])), self.memory.present_maker(args[0])
            return self.counts.of(func, args, options, owner, maker)
        args, options = self.counts.used_up((tuple(args), options), _name(func))
        entry = self._entry((args, options))
        result = self._run(func, args, options)
        self._note(None, None, func, entry, result)
        return result

    def _run(self, func: Callable[..., Any], args: Sequence[Any], options: dict[str, Any]) -> Any:
        try:
            return quick(func)(*args, **options)
        except Exception as error:
            tensors = [leaf for leaf in tree_leaves((args, options)) if isinstance(leaf, Tensor)]
            self.failed = Failed(error, _name(func), tuple(tensors))
            raise

    def _entry(self, arguments: Any) -> _Entry:
        given = tree_map_only(Tensor, self._given, arguments)
        tensors = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]
        return _Entry(arguments, given, [(tensor, tensor._version) for tensor in tensors])

    def _apart(self, arguments: Any, result: Any) -> Any:
        # what a layer gives back as it is (nn.Identity) or overwrites is one tensor by two names, with a maker each
        same = isinstance(result, Tensor) and any(result is each for each in arguments)
        return result.view_as(result) if same else result

    def _given(self, tensor: Tensor) -> Given:
        return Given(self.memory.maker(tensor), tuple(tensor.shape))

    def _note(
        self, path: str | None, layer: nn.Module | None, func: Callable[..., Any] | None, entry: _Entry, result: Any
    ) -> None:
        written = entry.tensors() if getattr(layer, "inplace", False) else entry.written()
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)] or written
        arguments, options = entry.given
        given = [leaf for leaf in tree_leaves(entry.given) if isinstance(leaf, Given)]
        known = [(leaf.maker, leaf.shape) for leaf in given if leaf.maker is not None]
        name = type(layer).__name__ if func is None else _name(func)
        if made:
            owners = (self.owners.get(id(tensor)) for tensor in entry.tensors())
            self.borrowed |= dict.fromkeys((owner for owner in owners if owner is not None), path or name)
        if not made or not known:
            return
        inputs, shapes = zip(*known, strict=True)
        for part, tensor in enumerate(made if layer is None else made[:1]):
            facts = (inputs, shapes, tuple(tensor.shape), func, tuple(arguments), options, part)
            self.calls.append(Call(len(self.calls), path, layer, name, *facts))
            self.know(made if layer is not None else [tensor], len(self.calls) - 1)
        index = len(self.calls) - 1
        if layer is not None:
            self.memory.hand_on(index, entry.tensors(), made)
        self.memory.overwrite(index, written, made)

    def know(self, tensors: Any, maker: int = -1) -> None:
        """Remember who made these tensors."""
        for leaf in tree_leaves(tensors):
            if isinstance(leaf, Tensor):
                self.memory.know(leaf, maker)

    def sources(self, result: Any) -> Iterator[int]:
        """The makers of the tensors in ``result``."""
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                maker = self.memory.maker(leaf)
                yield -1 if maker is None else maker

    def unused(self, shadow: nn.Module) -> tuple[str, ...]:
        """Modules with parameters that neither ran nor had one of them read, nor any of their parts; the outermost."""
        found: list[str] = []
        inside = tuple(f"{path}." for path in self.leaves)  # their parts are theirs
        for path, module in shadow.named_modules():
            if not path or path.startswith((*(f"{each}." for each in found), *inside, "\0")):
                continue
            parts = {f"{path}.{name}".rstrip("."): part for name, part in module.named_modules()}
            silent = not self.entered & parts.keys() and not any(id(each) in self.read for each in module.parameters())
            compiled = any(isinstance(part, torch.jit.ScriptModule) for part in parts.values())
            if silent and not compiled and next(module.parameters(), None) is not None:
                found.append(path)
        return tuple(found)

    def flow(self, result: Any, shadow: nn.Module) -> Flow:
        """The recorded flow, after the network ``shadow`` has returned ``result``."""
        self.counts.used_up(result, "an output")
        outputs = tuple(self.sources(result))
        calls = laid_out([self._with_earlier_names(call) for call in self.calls])
        overwriting = {index for writer in self.memory.read_again for index in (writer, *self.memory.handed[writer])}
        return Flow(
            calls,
            outputs,
            frozenset(overwriting),
            self.watched,
            self.borrowed,
            self.counts.used,
            self.counts.read,
            self.unused(shadow),
        )

    def _with_earlier_names(self, call: Call) -> Call:
        again = self.memory.read_again.get(call.index, {})
        extra = {maker: shape for maker, shape in again.items() if maker >= 0 and maker not in call.inputs}
        return evolve(call, inputs=(*call.inputs, *extra), shapes=(*call.shapes, *extra.values()))

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self.handles:
            handle.remove()


def _name(func: Callable[..., Any]) -> str:
    return str(getattr(func, "_opname", None) or getattr(func, "__name__", func))


def _parameters(values: Any) -> Iterator[int]:
    """The ids of the parameters among nested arguments; `tree_leaves` takes longer than most calls on meta tensors."""
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, nn.Parameter):
            yield id(value)
        elif isinstance(value, (tuple, list, dict)):
            yield from _parameters(value)
