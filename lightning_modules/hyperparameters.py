"""Hyper-parameters as plain values, the same from Python as from the command line, and modules rebuilt from them."""

import dataclasses
import functools
import importlib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from likeness.networks.architectures import architecture_alone, architectures_of

PROJECT = ("likeness", "lightning_modules")
BUILDABLE = (nn.Module, Optimizer, LRScheduler)
Factory = typing.TypeVar("Factory")
# Options of networks that are no more, each with the value at which it changed nothing: older checkpoints say so.
RETIRED: dict[str, Any] = {
    "vanish_at_zero": False,
    "vanish_at_one": False,
    "vanish_after_half": False,
    "factor": 1.0,
    "max_variance": 0.0,
    "min_variance": 0.0,
    "cap_by_input_variance": False,
    "identity_at_zero": False,
}
OWN = ("_class_path", "_instantiator", "_architectures")  # what is kept beside the arguments
ARCHITECTURES = "_architectures"  # of models of other libraries, which need no files of theirs when they are rebuilt
INSTANTIATOR = "pytorch_lightning.cli.instantiate_module"


def save_hyperparameters(module: pl.LightningModule) -> None:
    """Call in ``__init__``, after ``super().__init__()``: ``module.hparams`` becomes what a checkpoint may hold.

    LightningCLI records a class or factory as ``{class_path, init_args}``; this does the same where the module is
    built from Python with classes or ``functools.partial``, so that both kinds of checkpoint load alike, with
    ``weights_only=True``. Raises TypeError naming an argument that no import path can describe, such as a lambda.
    """
    frame = inspect.currentframe()
    module.save_hyperparameters(frame=frame.f_back if frame else None)
    own = {*arguments_of(type(module)), "_class_path"}
    for name in module.hparams.keys() - own:  # the CLI also records what it links to models that have use for it
        del module.hparams[name]
    hints = _hints(type(module))
    plain = {name: _describe(value, name, _called_with(hints.get(name))) for name, value in module.hparams.items()}
    plain |= {"_class_path": plain.get("_class_path", class_path(type(module))), "_instantiator": INSTANTIATOR}
    module.save_hyperparameters(plain)


def keep_architectures(module: pl.LightningModule) -> None:
    """Call when the networks are built: checkpoints then hold what rebuilds those of other libraries without files."""
    if found := architectures_of(module):
        module.hparams[ARCHITECTURES] = found


def plain_factory(factory: Factory) -> Factory:
    """A factory that a module may keep: jsonargparse's hold the whole command line, trainer and processes included.

    A module that keeps one of those cannot be copied, which weight averaging does.
    """
    cls: Any = _class_of(factory) if isinstance(factory, functools.partial) else None
    if cls is None:
        return factory
    keywords = typing.cast(functools.partial[Any], factory).keywords
    return typing.cast(Factory, functools.partial(cls, **keywords))


def rebuild(cls: type[Any], hparams: Mapping[str, Any]) -> Any:
    """``cls(**hparams)`` with every ``{class_path, init_args}`` made a factory or an instance, as ``cls`` wants it.

    Networks of other libraries have random weights, which those of a checkpoint are to replace.
    Raises ValueError for a class path outside the project and the modules already imported, or of anything but a
    network, an optimiser or a scheduler; and for arguments that ``cls`` does not take or that are missing.
    """
    given = {name: value for name, value in hparams.items() if name not in OWN}
    arguments = arguments_of(cls)
    for name in given:
        if name not in arguments:
            raise ValueError(f"{cls.__name__} takes no argument {name!r}")
    for name, argument in arguments.items():
        if argument.default is argument.empty and name not in given:
            raise ValueError(f"{cls.__name__} needs an argument {name!r}, which is missing")
    with architecture_alone(hparams.get(ARCHITECTURES)):
        return cls(**_build_arguments(cls, given))


def arguments_of(cls: type[Any]) -> dict[str, inspect.Parameter]:
    """The arguments of ``cls`` by name; its ``**options`` stand for those of the class that it extends."""
    arguments = dict(inspect.signature(cls).parameters)
    rest = next((name for name, value in arguments.items() if value.kind is inspect.Parameter.VAR_KEYWORD), None)
    if rest is None or cls.__base__ is None:
        return arguments
    del arguments[rest]
    return arguments | {name: value for name, value in arguments_of(cls.__base__).items() if name not in arguments}


def resolve_class(path: str, bases: tuple[type, ...] = BUILDABLE) -> type[Any]:
    """The class that ``path`` names, imported only where it is the project's own.

    Raises ValueError unless it is a subclass of one of ``bases``: a path from a file must not name code to run.
    """
    from likeness.moved_names import moved  # of old checkpoints alone

    module_path, _, name = moved(path).rpartition(".") if isinstance(path, str) else ("", "", "")
    if module_path.partition(".")[0] in PROJECT:
        try:
            importlib.import_module(module_path)
        except ImportError as error:
            raise ValueError(f"class path {path!r} cannot be imported: {error}") from error
    cls = getattr(sys.modules.get(module_path), name, None)
    if not (isinstance(cls, type) and issubclass(cls, bases)):
        wanted = ", ".join(base.__name__ for base in bases)
        raise ValueError(f"class path {path!r} is no subclass of {wanted} of this project or an imported module")
    return cls


def class_path(cls: type[Any]) -> str:
    """The shortest import path of ``cls``, the one that LightningCLI writes.

    Raises TypeError for a class inside a function or another class, which has none.
    """
    if "." in cls.__qualname__:
        raise TypeError(f"class {cls.__qualname__} has no import path: define it at the top of a module")
    parts = cls.__module__.split(".")
    for end in range(1, len(parts)):
        package = ".".join(parts[:end])
        if getattr(sys.modules.get(package), cls.__qualname__, None) is cls:
            return f"{package}.{cls.__qualname__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def _describe(value: Any, name: str, called_with: int = 0) -> Any:
    if value is None or isinstance(value, bool | int | float | str | Tensor):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _describe(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_describe(item, name, called_with) for item in value]
    if isinstance(value, type):
        return _describe_class(value, {}, name, called_with)
    if isinstance(value, functools.partial) and (cls := _class_of(value)) is not None:
        return _describe_class(cls, value.keywords, name, called_with)
    raise TypeError(f"{name} must be plain values, a class or functools.partial of a class to be saved, got {value!r}")


def _describe_class(cls: type[Any], arguments: Mapping[str, Any], name: str, called_with: int) -> dict[str, Any]:
    return {"class_path": class_path(cls), "init_args": _defaults(cls, called_with) | _describe(arguments, name)}


def _class_of(factory: functools.partial[Any]) -> type[Any] | None:
    """The class that a factory calls; jsonargparse wraps it and passes it last among the positional arguments."""
    if isinstance(factory.func, type):
        return None if factory.args else factory.func
    wrapped = factory.args[-1] if factory.args and factory.func.__module__.startswith("jsonargparse.") else None
    return wrapped if isinstance(wrapped, type) else None


def _defaults(cls: type[Any], called_with: int) -> dict[str, Any]:
    """The optional arguments of ``cls`` after those it is called with: a checkpoint outlives a change of defaults."""
    found = {}
    for name, argument in list(arguments_of(cls).items())[called_with:]:
        if argument.default is not argument.empty:
            try:
                found[name] = _describe(argument.default, name)
            except TypeError:
                continue  # left to the class, which made it
    return found


def _build_arguments(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    hints = _hints(cls)
    return {name: _build(value, hints.get(name)) for name, value in values.items()}


def _hints(cls: Any) -> dict[str, Any]:
    """The types of a class's arguments, those of the classes that it extends among them."""
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if "__init__" in vars(base):
            try:
                hints |= typing.get_type_hints(base.__init__)
            except NameError:  # an annotation that only a type checker can resolve
                continue
    return hints


def _build(value: Any, hint: Any) -> Any:
    if isinstance(value, Mapping) and "class_path" in value:
        cls: Any = resolve_class(value["class_path"])
        arguments = _build_arguments(cls, {**value.get("init_args", {}), **value.get("dict_kwargs", {})})
        factory = functools.partial(cls, **arguments)
        return factory if _is_factory(hint) else factory()
    if isinstance(value, list) and typing.get_origin(hint) is tuple:
        return tuple(value)
    if isinstance(value, list) and (of_each := _element(hint)) is not None:
        return [_build(entry, of_each) for entry in value]
    options: Any = next((choice for choice in _choices(hint) if dataclasses.is_dataclass(choice)), None)
    if isinstance(value, Mapping) and options is not None:
        return options(**{name: entry for name, entry in value.items() if RETIRED.get(name) != entry})
    return value


def _element(hint: Any) -> Any:
    """The type of the entries of a list of factories, where a value may be one."""
    lists = [typing.get_args(choice)[0] for choice in _choices(hint) if typing.get_origin(choice) is list]
    return lists[0] if lists and _is_factory(lists[0]) else None


def _is_factory(hint: Any) -> bool:
    return any(typing.get_origin(choice) in (Callable, type) for choice in _choices(hint))


def _called_with(hint: Any) -> int:
    """How many arguments a factory of this type is called with."""
    factories = [choice for choice in _choices(hint) if typing.get_origin(choice) is Callable]
    return len(typing.get_args(factories[0])[0]) if factories else 0


def _choices(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
