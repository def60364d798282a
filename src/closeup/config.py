"""The base of every configuration: a frozen dataclass that reads, checks, changes and hashes itself."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from closeup.errors import ConfigError, suggest

ConfigT = TypeVar("ConfigT", bound="Config")


@dataclass(frozen=True)
class Config:
    """A frozen dataclass whose fields are plain values, tuples, string-keyed mappings or other configurations.

    Subclasses are ``@dataclass(frozen=True)``; ranges are checked in their own ``__post_init__`` with ConfigError.
    """

    @classmethod
    def from_dict(cls: type[ConfigT], data: Mapping[str, object]) -> ConfigT:
        """Build the configuration from JSON-like values; ConfigError names an unknown key or a value of the wrong type.

        A list is taken for a tuple, a whole number for a float, a string for a path, a mapping for a nested
        configuration; nothing else is converted.
        """
        return _build(cls, data, "")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-like values from which ``from_dict`` builds an equal configuration."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def replace(self: ConfigT, **changes: object) -> ConfigT:
        """Return a copy with some fields changed, checked as in ``from_dict``."""
        kept = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return _build(type(self), {**kept, **changes}, "")

    @property
    def hash(self) -> str:
        """SHA-256 of the class name and the values, the same in every process and on every machine."""
        text = json.dumps([type(self).__name__, self.to_dict()], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _build(cls: type[ConfigT], data: Mapping[str, object], prefix: str) -> ConfigT:
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in data:
        if key not in fields:
            raise ConfigError(f"{cls.__name__} has no key {prefix + key!r}. {suggest(key, fields)}")
    for name, field in fields.items():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and name not in data:
            raise ConfigError(f"{cls.__name__} needs a value for {prefix + name!r}; it has no default.")
    return cls(**{key: _convert(value, hints[key], prefix + key) for key, value in data.items()})


def _convert(value: object, hint: Any, key: str) -> object:  # noqa: ANN401 - a type hint may be any object
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin is Literal:
        return _convert_literal(value, get_args(hint), key)
    if origin in (Union, types.UnionType):
        return _convert_union(value, hint, key)
    if origin is tuple:
        return _convert_tuple(value, hint, key)
    if origin is not None and issubclass(origin, Mapping):
        return _convert_mapping(value, hint, key)
    return _convert_plain(value, hint, key)


def _convert_literal(value: object, choices: tuple[object, ...], key: str) -> object:
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    raise ConfigError(f"{key} cannot be {value!r}. {suggest(str(value), map(str, choices))}")


def _convert_union(value: object, hint: object, key: str) -> object:
    options = [option for option in get_args(hint) if option is not types.NoneType]
    if value is None and len(options) < len(get_args(hint)):
        return None
    if len(options) == 1:
        return _convert(value, options[0], key)
    for option in sorted(options, key=lambda option: option is not type(value)):
        with contextlib.suppress(ConfigError):
            return _convert(value, option, key)
    raise _wrong(value, hint, key)


def _convert_tuple(value: object, hint: object, key: str) -> tuple[object, ...]:
    if not isinstance(value, (tuple, list)):
        raise _wrong(value, hint, key)
    inner = get_args(hint)
    if len(inner) == 2 and inner[1] is Ellipsis:
        inner = (inner[0],) * len(value)
    if len(inner) != len(value):
        raise ConfigError(f"{key} needs {len(inner)} values, but {value!r} has {len(value)}.")
    return tuple(_convert(item, kind, f"{key}[{i}]") for i, (item, kind) in enumerate(zip(value, inner, strict=True)))


def _convert_mapping(value: object, hint: object, key: str) -> dict[str, object]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise _wrong(value, hint, key)
    return {name: _convert(item, get_args(hint)[1], f"{key}.{name}") for name, item in value.items()}


def _convert_plain(value: object, hint: Any, key: str) -> object:  # noqa: ANN401
    kind = types.NoneType if hint is None else hint
    if isinstance(kind, type) and issubclass(kind, Config) and isinstance(value, Mapping):
        return _build(kind, cast("Mapping[str, object]", value), f"{key}.")
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and type(value) is int:
        return float(value)
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool and kind is not object):
        return value
    raise _wrong(value, hint, key)


def _wrong(value: object, hint: object, key: str) -> ConfigError:
    wanted = hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else str(hint)
    return ConfigError(f"{key} must be {wanted}, but is {value!r} ({type(value).__name__}).")


def _plain(value: object) -> object:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value.as_posix() if isinstance(value, Path) else value
