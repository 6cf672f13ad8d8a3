"""docs/reference/crd.md: both kinds as the API server knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redserve.spec.base import Spec
from redserve.spec.crd import RED_POOL, RED_SERVICE
from redserve.spec.problems import struct_in
from redserve.spec.service import API_VERSION
from redserve.spec.status import CONDITIONS
from tools.docs.fields import field_table, named_fields
from tools.docs.markdown import code, page, table

if TYPE_CHECKING:
    from redserve.spec.crd import Kind
    from tools.docs.fields import Titles

INTRODUCTION: Final = (
    "Two kinds of objects, both namespaced. The Helm chart installs and upgrades the definitions; "
    "by hand:",
    "",
    "```",
    "kubectl apply --server-side -f helm/redserve/files/crds",
    "```",
    "",
    "They are made from the models that `redserve validate` uses, so both refuse the same "
    "manifests. `kubectl explain redservice.spec.llm` tells what a field is for.",
    "",
)
_OPAQUE: Final = (
    "",
    "Not looked into by the definitions: `podTemplate` and `valueFrom`. The operator shows the "
    "pods made from them to the API server in a dry run; what it refuses is the message of "
    "`Accepted`.",
)


def crd_page() -> str:
    """The page."""
    return page(
        "Custom resources",
        *INTRODUCTION,
        *_names(),
        *_red_service(),
        *_red_pool(),
    )


def _names() -> list[str]:
    rows = [
        (
            code(kind.name),
            code(API_VERSION),
            f"{code(kind.plural)}, {code(kind.short)}, {code('redserve')}",
            kind.description,
        )
        for kind in (RED_SERVICE, RED_POOL)
    ]
    return [*table(("kind", "apiVersion", "names for kubectl", "what it is"), rows), ""]


def _red_service() -> list[str]:
    conditions = [(code(name), meaning) for name, meaning in CONDITIONS.items()]
    return [
        "## RedService",
        "Fields of `spec`: [configuration.md](configuration.md).",
        *_OPAQUE,
        "",
        *_structs("RedService.status", RED_SERVICE.status),
        "## Conditions of a RedService",
        "All are there from the first sight on, `Unknown` until something is known. Reasons: "
        "[troubleshooting](../how-to/kubernetes-troubleshooting.md).",
        "",
        *table(("type", "True means that"), conditions),
        "",
        *_columns(RED_SERVICE),
    ]


def _red_pool() -> list[str]:
    return [
        "## RedPool",
        "Named `SERVICE-encoder`, `SERVICE-llm`, `SERVICE-router`. Its `/scale` is for HPA, KEDA "
        "and `kubectl scale` where the manifest has `scaling`; else the operator puts the "
        "manifest's number back.",
        "",
        *_structs("RedPool.spec", RED_POOL.spec),
        *_structs("RedPool.status", RED_POOL.status),
        *_columns(RED_POOL),
    ]


def _structs(path: str, struct: type[Spec]) -> list[str]:
    titles: Titles = {}
    _collect(path, struct, titles)
    lines: list[str] = []
    for one, title in titles.items():
        about = (one.__doc__ or "").strip()
        lines += [f"## {title}", about, "", *field_table(named_fields(one), titles), ""]
    return lines


def _collect(path: str, struct: type[Spec], titles: Titles) -> None:
    titles.setdefault(struct, path)
    for name, field in named_fields(struct).items():
        inner = struct_in(field.annotation)
        if inner is not None and issubclass(inner, Spec):
            _collect(f"{path}.{name}", inner, titles)


def _columns(kind: Kind) -> list[str]:
    rows = [
        (column.name, code(column.path), column.description, "`-o wide`" if column.wide else "")
        for column in kind.columns
    ]
    return [
        f"## Columns of kubectl get {kind.plural}",
        *table(("column", "from", "what it is", "shown with"), rows),
        "",
    ]
