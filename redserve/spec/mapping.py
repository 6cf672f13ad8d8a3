"""Mappings whose keys are names, such as labels and resources."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import PydanticCustomError, core_schema

from redserve.spec.patterns import WORDS

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

MAX_KEY: Final = 317
"""Characters of domain/name: 253, a slash, 63."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Annotation of a mapping: what its keys look like.

    A key without a value is as if it were not there, as for the API server.

    Attributes:
        pattern: One of `redserve.spec.patterns`.
    """

    pattern: str

    def check(self, mapping: dict[str, Any]) -> dict[str, Any]:
        """Pass the mapping on or refuse it."""
        for key in mapping:
            if len(key) > MAX_KEY or re.search(self.pattern, key) is None:
                raise PydanticCustomError(
                    "key", "{key} {words}", {"key": repr(key), "words": WORDS[self.pattern]}
                )
        return mapping

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(
            _without_nothing,
            core_schema.no_info_after_validator_function(self.check, handler(source)),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Carry the shape into the schema, for the CustomResourceDefinition."""
        made = handler(schema)
        pattern = self.pattern.replace("\\", "\\\\")  # CEL's own escapes
        made["x-kubernetes-validations"] = [
            {
                "rule": f"self.all(key, size(key) <= {MAX_KEY} && key.matches('{pattern}'))",
                "message": f"every key {WORDS[self.pattern]}",
            }
        ]
        return made


def _without_nothing(raw: object) -> object:
    if not isinstance(raw, dict):
        return raw
    return {key: value for key, value in raw.items() if value is not None}
