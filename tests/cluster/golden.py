"""What is rendered of each example.

`python -m tests.cluster.golden` rewrites the files; the difference is for review.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redserve.cli.render import as_yaml
from redserve.cluster.documents import documents
from redserve.cluster.facts import OPTIONAL_KINDS, ClusterFacts, Context, Images, Owner
from redserve.spec.manifest import load_manifest
from tests.spec import manifests

if TYPE_CHECKING:
    from redserve.spec.service import RedService

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
IMAGES = Images("example.com/router:1", "example.com/encoder:1", "example.com/llm:1")
PLAIN = Context("serving", IMAGES)
EVERYTHING = Context(
    "serving",
    Images("example.com/router:1", "example.com/encoder:1", "example.com/llm:1", "Always", ("b",)),
    ClusterFacts(36, frozenset(OPTIONAL_KINDS)),
    Owner("owner", "11111111-2222-3333-4444-555555555555"),
    model_revision="0cfaf48183f594c314753d30a4c4974bc75f3ccb",
)


@dataclass(frozen=True)
class Case:
    name: str
    manifest: Path
    context: Context

    @property
    def path(self) -> Path:
        return GOLDEN / f"{self.name}.yaml"

    def service(self) -> RedService:
        return load_manifest(self.manifest)

    def objects(self) -> list[dict[str, Any]]:
        return documents(self.service(), self.context)

    def text(self) -> str:
        return f"# {self.manifest.name}\n{as_yaml(self.objects())}"


CASES = (
    Case("minimal", manifests.EXAMPLES / "minimal.yaml", PLAIN),
    Case("complete", manifests.EXAMPLES / "complete.yaml", EVERYTHING),
    Case("demo", manifests.ROOT / "examples/redservice.yaml", PLAIN),
    Case("rdma", HERE / "manifests/rdma.yaml", PLAIN),
    Case("tcp", HERE / "manifests/tcp.yaml", PLAIN),
    Case("hf-pvc", HERE / "manifests/hf-pvc.yaml", EVERYTHING),
    Case("hf-ephemeral", HERE / "manifests/hf-ephemeral.yaml", EVERYTHING),
    Case("pod-template", HERE / "manifests/pod-template.yaml", PLAIN),
    Case("several-nodes", HERE / "manifests/several-nodes.yaml", EVERYTHING),
)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for case in CASES:
        case.path.write_text(case.text())
