"""Every variable that exists, read off the model: its name, its place, and whether it is a secret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, SecretStr

from app.settings.model import ApiToken, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX: Final = "VAULT_STREAM_"
MASK: Final = "********"


@dataclass(frozen=True, slots=True)
class Variable:
    """One setting: `name` is the variable, `path` the attributes that lead to it from `Settings`."""

    name: str
    path: tuple[str, ...]

    def value(self, settings: Settings) -> Any:
        """The effective value, secrets included."""
        value: Any = settings
        for attribute in self.path:
            value = getattr(value, attribute)
        return value

    def shown(self, settings: Settings) -> Any:
        """The effective value as JSON would have it, each secret as `********`."""
        return _masked(self.value(settings))


def _masked(value: Any) -> Any:
    match value:
        case None | bool() | int() | float():
            return value
        case SecretStr():
            return MASK
        case ApiToken():
            return {"name": value.name, "role": value.role, "sha256": MASK}
        case tuple():
            return [_masked(item) for item in value]
    return str(value)


def _variables(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[Variable]:
    for name, field in model.model_fields.items():
        if field.exclude:
            continue
        here = (*path, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _variables(field.annotation, here)
        else:
            yield Variable(PREFIX + "__".join(here).upper(), here)


VARIABLES: Final[tuple[Variable, ...]] = tuple(_variables(Settings, ()))
"""In the order of the model."""
BY_NAME: Final[dict[str, Variable]] = {variable.name: variable for variable in VARIABLES}
BY_PATH: Final[dict[tuple[str, ...], Variable]] = {variable.path: variable for variable in VARIABLES}
