"""What a user's network hides of `nn.Module`: `self.modules = [...]` stands where torch calls `net.modules()`.

Lists, mappings, words and numbers under such a name become ones that can also be called, as the method that they hide;
the network's own code reads them as before. What cannot be made so is refused by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MethodType
from typing import Any

from torch import nn

from compress.errors import RecipeError

_CALLED = (
    *("modules", "named_modules", "children", "named_children", "parameters", "named_parameters", "buffers"),
    *("named_buffers", "train", "eval", "state_dict", "load_state_dict", "apply", "to", "float", "requires_grad_"),
    *("get_submodule", "set_submodule", "get_parameter", "get_buffer", "register_buffer", "register_parameter"),
    *("register_module", "add_module", "register_forward_hook", "register_forward_pre_hook", "zero_grad", "_apply"),
)
"""What torch, its exporters and our passes call on a network; whatever else is hidden does no harm."""
_LISTED = (
    *("modules", "named_modules", "children", "named_children", "parameters", "named_parameters", "buffers"),
    *("named_buffers", "state_dict"),
)
_CALLABLE_TOO = (list, tuple, dict, set, str, int, float)
Named = tuple[str, nn.Module]


def uncovered(net: nn.Module, file: str) -> nn.Module:
    """The network, every method of `nn.Module` that it hides callable again.

    Args:
        file: the user's, for the message.

    Raises:
        RecipeError: if something hides a method and cannot be called in its place.
    """
    for name, module in _walk(net):
        for hidden in _CALLED:
            if hidden in vars(module) and not callable(vars(module)[hidden]):
                vars(module)[hidden] = _both(module, hidden, name, file)
        for method in ("train", "eval"):
            _returning(module, method)
        for method in _LISTED:
            _check_own(module, method, name, file)
    return net


def _walk(module: nn.Module, name: str = "", seen: set[int] | None = None) -> Iterator[Named]:
    """Every module once, by what torch itself keeps them in: its methods may be hidden."""
    seen = set() if seen is None else seen
    if id(module) in seen:
        return
    seen.add(id(module))
    yield name, module
    for part, inner in module._modules.items():
        if inner is not None:
            yield from _walk(inner, f"{name}.{part}" if name else part, seen)


def _both(module: nn.Module, hidden: str, name: str, file: str) -> Any:
    value = vars(module)[hidden]
    if isinstance(value, bool) or not isinstance(value, _CALLABLE_TOO):
        raise _refused(module, hidden, name, file, f"is a {type(value).__name__} there")
    # A method of the module, so that a copy of the module has a method of the copy.
    method = MethodType(getattr(type(module), hidden), module)
    return _callable_kind(type(value))(value)._calling(method)


def _callable_kind(kind: type) -> Any:
    if kind not in _KINDS:
        _KINDS[kind] = type(f"Callable{kind.__name__.title()}", (_Callable, kind), {})
    return _KINDS[kind]


_KINDS: dict[type, Any] = {}


class _Callable:
    """What a network keeps under a method's name, and that method."""

    _method: Callable[..., Any]

    def _calling(self, method: Callable[..., Any]) -> _Callable:
        self._method = method
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._method(*args, **kwargs)


def _returning(module: nn.Module, method: str) -> None:
    """`train` and `eval` give the module back, also where a class has its own that forgot to."""
    own = getattr(type(module), method)
    if own is getattr(nn.Module, method) or method in vars(module):
        return

    def returning(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        own(module, *args, **kwargs)
        return module

    vars(module)[method] = MethodType(returning, module)


def _check_own(module: nn.Module, method: str, name: str, file: str) -> None:
    """A class may have a method of its own under a name of torch's only if it gives what torch's gives."""
    if getattr(type(module), method, None) is getattr(nn.Module, method):
        return
    try:
        same = _listed(getattr(module, method)()) == _listed(getattr(nn.Module, method)(module))
    except Exception:  # noqa: BLE001  whatever a stranger's method raises: it is not torch's
        same = False
    if not same:
        raise _refused(module, method, name, file, "is its own there, and gives something else")


def _listed(found: Any) -> list[Any]:
    if isinstance(found, Mapping):
        return list(found)
    return [each[0] if isinstance(each, tuple) else id(each) for each in found]


def _refused(module: nn.Module, hidden: str, name: str, file: str, what: str) -> RecipeError:
    where = f"layer {name}: " if name else ""
    told = f"{where}{type(module).__name__}.{hidden} {what}, and hides nn.Module.{hidden}, which torch calls"
    return RecipeError(file, [f"{told}: give it another name"])
