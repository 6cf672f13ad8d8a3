"""Plain YAML words as Kubernetes reads them, where Python's YAML library reads otherwise.

kubectl turns YAML into JSON: `12e4567` is a number there, `1:30` is none, `2.0` arrives as 2, and
keys are always texts. A manifest must not mean one thing here and another thing there.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

import yaml

_TAG: Final = "tag:yaml.org,2002:"
_WORDS: Final = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"[yY]|yes|Yes|YES|on|On|ON|[tT]rue|TRUE", "yYoOtT"),
    ("bool", r"[nN]|no|No|NO|off|Off|OFF|[fF]alse|FALSE", "nNoOfF"),
    ("merge", r"<<", "<"),
    ("int", r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[1-9][0-9_]*|0)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
)
_TRUE: Final = ("y", "yes", "on", "true")
_LARGEST: Final = 2**63


class KubernetesLoader(yaml.SafeLoader):
    """Safe; scalars and keys as kubectl sends them."""

    yaml_implicit_resolvers: Final = {}  # type: ignore[misc]  # shared with the base otherwise

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As the base, with texts for keys."""
        self.flatten_mapping(node)
        return {
            _key(self.construct_object(key, deep=True)): self.construct_object(value, deep=deep)
            for key, value in node.value
        }


def _key(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _int(_loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "")
    sign = -1 if text[0] == "-" else 1
    digits = text.lstrip("+-")
    octal = re.fullmatch(r"0o?([0-7]+)", digits)
    return sign * (int(octal[1], 8) if octal else int(digits, 0))


def _float(_loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float | str:
    number = float(node.value.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    if math.isinf(number) and "inf" not in node.value.lower():
        return str(node.value)  # no number can be that large: it is a text
    whole = number.is_integer() and abs(number) < _LARGEST
    return int(number) if whole else number


for _name, _pattern, _first in _WORDS:
    KubernetesLoader.add_implicit_resolver(
        f"{_TAG}{_name}", re.compile(f"^(?:{_pattern})$"), list(_first)
    )
KubernetesLoader.add_constructor(f"{_TAG}bool", lambda _, node: node.value.lower() in _TRUE)
KubernetesLoader.add_constructor(f"{_TAG}int", _int)
KubernetesLoader.add_constructor(f"{_TAG}float", _float)
