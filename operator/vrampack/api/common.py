"""What all four resources share: naming on the wire, quantities, percentages, checked texts, rules and conditions.

A model of this package is the wire format of one resource, and the CRD is made from it. So a field's docstring is what
``kubectl explain`` prints, a field's bounds are those of the API server, and a rule that the API server evaluates (CEL)
stands at the field that it is about.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from vrampack.units import format_bytes, parse_bytes, parse_quantity

_INITIALISMS = {"gpu": "GPU", "uid": "UID"}


def wire_name(name: str) -> str:
    """``per_gpu`` as it stands in a manifest: ``perGPU``."""
    first, *rest = name.split("_")
    return first + "".join(_INITIALISMS.get(word, word.capitalize()) for word in rest)


class ApiModel(BaseModel):
    """Base of everything on the wire: frozen, camelCase outside, what is not known is ignored.

    Unknown fields are ignored because the API server prunes them, and because a status may come from a newer version.
    """

    model_config = ConfigDict(
        alias_generator=wire_name,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )

    def wire(self) -> dict[str, Any]:
        """The manifest's form: camelCase, plain JSON types, without the fields that are not set."""
        return self.model_dump(by_alias=True, mode="json", exclude_none=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One ``x-kubernetes-validations`` entry. The message says what to do; ``message_expression`` is CEL for it."""

    rule: str
    message: str
    message_expression: str | None = None
    field_path: str | None = None
    """The field below the one that carries the rule, such as ``.tokensPerSequence``."""


AS_SET: Final[dict[str, Any]] = {"x-kubernetes-list-type": "set"}
"""For ``json_schema_extra`` of a list without duplicates."""


def by_key(*keys: str) -> dict[str, Any]:
    """For ``json_schema_extra`` of a list whose entries these fields tell apart: several writers can share it."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def rules(*given: Rule) -> dict[str, Any]:
    """For ``json_schema_extra`` of a field or a model."""
    entries: list[dict[str, str]] = []
    for each in given:
        entry = {"rule": each.rule, "message": each.message}
        if each.message_expression is not None:
            entry["messageExpression"] = each.message_expression
        if each.field_path is not None:
            entry["fieldPath"] = each.field_path
        entries.append(entry)
    return {"x-kubernetes-validations": entries}


class Quantity(str):
    """A Kubernetes quantity, not negative, kept as it was written: ``24Gi``. In a manifest also a plain number."""

    __slots__ = ()

    @property
    def bytes(self) -> int:
        """The value in whole bytes, rounded up."""
        return parse_bytes(self)

    @classmethod
    def of(cls, value: int) -> Self:
        """Bytes as the shortest exact quantity."""
        return cls(format_bytes(value))

    @classmethod
    def parse(cls, value: object) -> Self:
        """Raises ValueError when the value is no quantity or a negative one."""
        if not isinstance(value, str | int | float):
            raise ValueError(f"{value!r} is no quantity; write a number with an optional suffix, such as 24Gi")
        if parse_quantity(value) < 0:
            raise ValueError(f"{value!r} is negative; write 0 or more, such as 24Gi")
        return cls(value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "maxLength": 32,
        } | AtLeast("0").rules()


@dataclass(frozen=True, slots=True)
class AtLeast:
    """Annotates a `Quantity`: the least value that makes sense, as a quantity."""

    minimum: str

    @property
    def allowed(self) -> str:
        """What is allowed, in words. A forgotten suffix is the usual mistake."""
        return f"write a quantity of at least {self.minimum}, such as 24Gi; without a suffix it is bytes"

    def check(self, value: Quantity) -> Quantity:
        """Raises ValueError for a smaller one."""
        if parse_quantity(value) < parse_quantity(self.minimum):
            raise ValueError(self.allowed)
        return value

    def rules(self) -> dict[str, Any]:
        """The same for the API server."""
        text = "string(self)"
        compared = f"quantity({text}).compareTo(quantity('{self.minimum}')) >= 0"
        return rules(Rule(rule=f"isQuantity({text}) && {compared}", message=self.allowed))

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | self.rules()


@dataclass(frozen=True, slots=True)
class AtMost:
    """Annotates a `Quantity` that is no memory: the greatest value that makes sense, as a quantity."""

    maximum: str

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""
        return f"write a number from 0 to {self.maximum}"

    def check(self, value: Quantity) -> Quantity:
        """Raises ValueError for a greater one."""
        if parse_quantity(value) > parse_quantity(self.maximum):
            raise ValueError(self.allowed)
        return value

    def rules(self) -> dict[str, Any]:
        """The same for the API server."""
        value = "quantity(string(self))"
        bounds = f"{value}.compareTo(quantity('0')) >= 0 && {value}.compareTo(quantity('{self.maximum}')) <= 0"
        return rules(Rule(rule=f"isQuantity(string(self)) && {bounds}", message=self.allowed))

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | self.rules()


@dataclass(frozen=True, slots=True)
class Text:
    """Annotates a string field: one regular expression for Python and CEL, and words for whoever gets it wrong.

    The expression must mean the same in Python's ``re`` and in RE2, and is matched against the whole text.
    """

    pattern: str
    allowed: str
    max_length: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            self.check, core_schema.str_schema(max_length=self.max_length)
        )

    def check(self, value: str) -> str:
        """Raises ValueError, saying what is allowed."""
        if re.fullmatch(self.pattern, value) is None:
            raise ValueError(self.allowed)
        return value

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "maxLength": self.max_length} | rules(
            Rule(rule=f"self.matches(r'^({self.pattern})$')", message=self.allowed)
        )


class Percentage(str):
    """A share such as ``3%`` or ``2.5%``, below 100 %, at most two decimals."""

    __slots__ = ()

    _TEXT = Text(
        pattern=r"[0-9]{1,2}(\.[0-9]{1,2})?%",
        allowed="write a percentage below 100%, such as 3% or 2.5%",
        max_length=6,
    )

    @property
    def percent(self) -> float:
        """The number before the sign: 3.0 for ``3%``."""
        return float(self.removesuffix("%"))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = cls._TEXT.__get_pydantic_core_schema__(source, handler)
        return core_schema.no_info_after_validator_function(
            cls, text, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return cls._TEXT.__get_pydantic_json_schema__(schema, handler)


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """One fact about the object, as Kubernetes writes conditions."""

    type: str = Field(min_length=1, max_length=64)
    """What the condition is about, in CamelCase: Ready, Reconciling, Stalled, Scheduled, …"""
    status: ConditionStatus
    """True, False or Unknown."""
    observed_generation: int | None = Field(default=None, ge=0)
    """The metadata.generation that this condition was decided for."""
    last_transition_time: str = Field(min_length=1, max_length=40, json_schema_extra={"format": "date-time"})
    """When the status last changed."""
    reason: str = Field(min_length=1, max_length=64)
    """The cause in one CamelCase word, for programs."""
    message: str = Field(default="", max_length=8192)
    """The cause in whole words, with the bytes that matter, for people."""
