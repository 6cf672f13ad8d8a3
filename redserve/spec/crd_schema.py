"""From the models to the structural schema that a CustomResourceDefinition must have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic.json_schema import GenerateJsonSchema

from redserve.spec.quantity import Quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve.spec.base import Spec

Schema = dict[str, Any]
"""A node of an OpenAPI v3 schema, as plain data."""

_INT32: Final = 2**31
_INT_OR_STRING: Final = "x-kubernetes-int-or-string"
_KEPT: Final = (
    "enum",
    "format",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "maxProperties",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
)
"""Keywords that mean the same in both worlds, in the order in which they are written."""


def structural(model: type[Spec]) -> Schema:
    """The schema of a struct: no references, no nulls, no titles, defaults on the leaves.

    A struct that may be left out and has defaults somewhere inside defaults to `{}`, so that the
    API server fills these in. The `{}` itself is checked by the struct's CEL rules before that.

    Raises:
        TypeError: The models use something that has no place in such a schema.
    """
    made = model.model_json_schema(by_alias=True, schema_generator=_Generator)
    return _convert(made, made.get("$defs", {}))


class _Generator(GenerateJsonSchema):
    """pydantic would write the default of a Quantity as the dataclass that it is."""

    def encode_default(self, dft: Any) -> Any:
        return str(dft) if isinstance(dft, Quantity) else super().encode_default(dft)


def _convert(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    node = _resolve(node, definitions)
    made: Schema = {}
    if "description" in node:
        made["description"] = " ".join(node["description"].split())
    made |= _shape(node, definitions)
    made |= {keyword: node[keyword] for keyword in _KEPT if keyword in node}
    if "const" in node:
        made["enum"] = [node["const"]]
    default = _default(node, made)
    return made if default is None else {**made, "default": default}


def _resolve(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """The node itself, in place of a reference to it or of "it or null"."""
    options = [one for one in node.get("anyOf", ()) if one != {"type": "null"}]
    if len(options) == 1:
        beside = {key: value for key, value in node.items() if key != "anyOf"}
        return _resolve({**options[0], **beside}, definitions)
    if "$ref" in node:
        beside = {key: value for key, value in node.items() if key != "$ref"}
        target = definitions[node["$ref"].removeprefix("#/$defs/")]
        return _resolve({**target, **beside}, definitions)
    return node


def _shape(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """`type` and what is inside."""
    if node.get(_INT_OR_STRING):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}], _INT_OR_STRING: True}
    match node.get("type"):
        case "object" if "properties" in node:
            return _struct(node, definitions)
        case "object" if node.get("additionalProperties") is True:
            return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        case "object":
            values = _convert(node["additionalProperties"], definitions)
            return {"type": "object", "additionalProperties": values}
        case "array":
            kind = node.get("x-kubernetes-list-type", "atomic")
            items = _convert(node["items"], definitions)
            return {"type": "array", "items": items, "x-kubernetes-list-type": kind}
        case "integer":
            fits = node["minimum"] >= -_INT32 and node["maximum"] < _INT32
            return {"type": "integer", "format": "int32" if fits else "int64"}
        case "string" | "boolean" as scalar:
            return {"type": scalar}
    raise TypeError(f"no structural schema for {dict(node)}")


def _struct(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    fields = {name: _convert(one, definitions) for name, one in node["properties"].items()}
    required = {"required": node["required"]} if node.get("required") else {}
    return {"type": "object", **required, "properties": fields}


def _default(node: Mapping[str, Any], made: Schema) -> Any:
    default = node.get("default")
    if default in (None, []):
        return None
    if made.get("type") == "object":
        return {} if _has_defaults(made) else None
    if made.get(_INT_OR_STRING) and str(default).isdecimal():
        return int(default)
    return default


def _has_defaults(struct: Schema) -> bool:
    return any("default" in field for field in struct.get("properties", {}).values())
