"""Names of the fields of a pod template, from the schemas that tests validate against.

`python -m tools.kubernetes_fields` rewrites `redserve/cluster/pod_fields.py`.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any, Final

import kubernetes_validate

ROOT: Final = Path(__file__).resolve().parents[1]
TARGET: Final = ROOT / "redserve/cluster/pod_fields.py"
_SCHEMAS: Final = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
_POD_TEMPLATE: Final = "io.k8s.api.core.v1.PodTemplateSpec"
_HEAD: Final = '''\
"""Names of the fields of a pod template. Made by `python -m tools.kubernetes_fields`."""

from typing import Final

MINOR: Final = {minor}
"""Kubernetes 1.x that they are of; newer ones may have more."""
ROOT: Final = "PodTemplateSpec"
TABLE: Final = """
{table}
"""
"""A type, its fields, and behind a colon the type of those that have fields themselves."""
'''


def text() -> str:
    """The module, from the newest schemas that are installed."""
    minor = max(
        int(found[1])
        for path in _SCHEMAS.iterdir()
        if (found := re.fullmatch(r"v1\.(\d+)\.\d+-local", path.name))
    )
    path = _SCHEMAS / f"v1.{minor}.0-local" / "_definitions.json"
    structs: dict[str, str] = {}
    _collect(json.loads(path.read_text())["$defs"], _POD_TEMPLATE, structs)
    lines = [
        textwrap.fill(f"{name}: {fields}", 100, subsequent_indent="  ", break_on_hyphens=False)
        for name, fields in sorted(structs.items())
    ]
    return _HEAD.format(minor=minor, table="\n".join(lines))


def _collect(definitions: dict[str, Any], name: str, structs: dict[str, str]) -> None:
    short = name.rpartition(".")[2]
    if short in structs:
        return
    structs[short] = ""
    words = []
    for plain, schema in definitions[name]["properties"].items():
        reference = (schema.get("items") or schema).get("$ref", "").rpartition("/")[2]
        has_fields = bool(definitions.get(reference, {}).get("properties"))
        if has_fields:
            _collect(definitions, reference, structs)
        words.append(f"{plain}:{reference.rpartition('.')[2]}" if has_fields else plain)
    structs[short] = " ".join(words)


if __name__ == "__main__":
    TARGET.write_text(text())
