"""Options of a model: reads what was typed after --set, and names the row of the leaderboard that they make."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from dfad_bench.errors import UsageError, did_you_mean
from dfad_bench.types import ModelSpec

Value = bool | int | float | str
_BOOLS = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}
_EXPECTED = {bool: "true or false", int: "a whole number", float: "a finite number"}
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]")


def configured(name: str, spec: ModelSpec, settings: Sequence[str]) -> tuple[ModelSpec, dict[str, Value]]:
    """Return a model with the options that texts ``option=value`` set, and by name those that differ from its defaults.

    name: the model's, for messages. Raises UsageError for an option that the model does not have, that is given twice or
    whose value does not fit, and for what the model itself refuses.
    """
    if not settings:
        return spec, {}
    if spec.configure is None:
        raise UsageError(f"--set {settings[0]}: model {name} has no options. Leave --set away.")
    options = {each.name: each for each in options_of(spec)}
    chosen: dict[str, Value] = {}
    for setting in settings:
        option, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: expected option=value.")
        if option not in options:
            told = ", ".join(map(_described, options.values()))
            hint = did_you_mean(option, options)
            raise UsageError(f"--set {setting}: model {name} has no option {option!r}.{hint} It has: {told}.")
        if option in chosen:
            raise UsageError(f"--set {setting}: option {option!r} is given twice. Give it once.")
        chosen[option] = _parsed(options[option], text, setting)
    different = {option: value for option, value in sorted(chosen.items()) if value != options[option].default}
    if not different:
        return spec, {}
    try:
        return spec.configure(**different), different
    except (ValueError, UsageError) as error:
        raise UsageError(f"--set {' --set '.join(settings)}: {' '.join(str(error).split())}") from None


def row_name(name: str, options: Mapping[str, Value]) -> str:
    """Return what a model with these options is called: ``<name>+<option>=<value>+…``, fit to be a file's name."""
    return "+".join([name, *(f"{option}={_NO_NAME.sub('-', _shown(options[option]))}" for option in sorted(options))])


def options_of(spec: ModelSpec) -> list[inspect.Parameter]:
    """Return the keyword parameters of a model's ``configure``, annotations evaluated; none where it has no options."""
    if spec.configure is None:
        return []
    return list(inspect.signature(spec.configure, eval_str=True).parameters.values())


def _described(option: inspect.Parameter) -> str:
    choices = _choices(option)
    offered = f" ({', '.join(map(_shown, choices))})" if choices else ""
    return f"{option.name}={_shown(option.default)}{offered}"


def _choices(option: inspect.Parameter) -> tuple[Value, ...]:
    return get_args(option.annotation) if get_origin(option.annotation) is Literal else ()


def _parsed(option: inspect.Parameter, text: str, setting: str) -> Value:
    # a default of 0 may stand for 0.0, where the annotation says so
    kind: type[Any] = float if option.annotation is float else type(option.default)
    value = _value(kind, text)
    if value is None:
        raise UsageError(f"--set {setting}: {option.name} is {_EXPECTED[kind]}, such as {_shown(option.default)}.")
    choices = _choices(option)
    if choices and value not in choices:
        offered = ", ".join(map(_shown, choices))
        hint = did_you_mean(text, map(_shown, choices))
        raise UsageError(f"--set {setting}: {option.name} is one of {offered}.{hint}")
    return value


def _value(kind: type[Any], text: str) -> Value | None:
    """Return the value that a text stands for, None where it stands for none of this kind."""
    if kind is bool:
        return _BOOLS.get(text.lower())
    try:
        value: Value = kind(text)
    except ValueError:
        return None
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    # without its plus: in a name it would become a minus, and 1e20 be 1e-20
    return f"{value:g}".replace("e+", "e") if isinstance(value, float) else str(value)
