"""REDServe installed as a stranger would: chart, operator, manifest; pods are processes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from redserve.errors import RedServeError, Unavailable
from redserve.wire.router_client import AnswerFinished, AnswerText, ChatMessage, Choices
from redserve.wire.router_client import RouterClient as Router
from tools.kubernetes.kubelet.images import Image, Images
from tools.kubernetes.programs import locate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tools.kubernetes.control_plane import ControlPlane
    from tools.kubernetes.kubelet.process_kubelet import ProcessKubelet

ROOT: Final = Path(__file__).resolve().parents[2]
EXAMPLES: Final = ROOT / "examples"
MANIFEST: Final = EXAMPLES / "redservice.yaml"
MAX_TOKENS: Final = 128
OPERATOR_NAMESPACE: Final = "redserve-system"
SERVICES: Final = "/apis/redserve.dev/v1alpha1"
_PAUSE_S: Final = 0.2


def images() -> Images:
    """The images of this release: this environment's Python and the code of this tree."""
    here = {str(path): path for path in (ROOT, Path(sys.prefix), Path(sys.base_prefix))}
    bin_folder = Path(sys.executable).parent
    image = Image(
        environment={
            "PATH": f"{bin_folder}:/usr/bin:/bin",
            "HOME": "/",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        paths={**here, "/models": EXAMPLES},
    )
    names = ("operator", "router", "encoder", "llm")
    return Images({f"redserve-{name}": image for name in names})


@dataclass(frozen=True)
class Question:
    """A question about pictures, and the one right answer."""

    text: str
    pictures: tuple[bytes, ...]
    answer: str


def questions() -> list[Question]:
    """Those of the demonstration."""
    listed = yaml.safe_load((EXAMPLES / "questions.yaml").read_text())
    return [
        Question(
            item["question"],
            tuple((EXAMPLES / image).read_bytes() for image in item["images"]),
            item["answer"],
        )
        for item in listed
    ]


@dataclass
class Answered:
    """What became of questions: every one is in one of the lists."""

    right: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


class Installation:
    """One cluster with the operator, and one namespace with services."""

    def __init__(
        self, control_plane: ControlPlane, kubelet: ProcessKubelet, namespace: str
    ) -> None:
        self.control_plane = control_plane
        self.kubelet = kubelet
        self.namespace = namespace

    def helm(self, *arguments: str) -> str:
        command = [
            str(locate("helm")),
            *arguments,
            f"--kubeconfig={self.control_plane.kubeconfig}",
            f"--namespace={OPERATOR_NAMESPACE}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def kubectl(self, *arguments: str, input: str | None = None) -> str:  # noqa: A002
        return self.control_plane.kubectl("-n", self.namespace, *arguments, input=input)

    def service(self, name: str) -> dict[str, Any]:
        """The RedService as the API server has it."""
        path = f"{SERVICES}/namespaces/{self.namespace}/redservices/{name}"
        found: dict[str, Any] = self.control_plane.api.get(path)
        return found

    def condition(self, name: str, kind: str) -> str:
        """Status of a condition, once it is about the manifest as it is now."""
        service = self.service(name)
        for condition in service.get("status", {}).get("conditions", []):
            if condition["type"] == kind:
                seen = condition.get("observedGeneration", 0)
                current = seen >= service["metadata"]["generation"]
                return str(condition["status"]) if current else "Unknown"
        return "Unknown"

    def pods(self, **labels: str) -> list[dict[str, Any]]:
        """Pods with these labels; `pool="llm"` is `redserve.dev/pool=llm`."""
        selector = ",".join(f"redserve.dev/{name}={value}" for name, value in labels.items())
        path = f"/api/v1/namespaces/{self.namespace}/pods?labelSelector={selector}"
        found: list[dict[str, Any]] = self.control_plane.api.get(path)["items"]
        return found

    def revisions(self, service: str) -> set[str]:
        """Revisions that have a pod."""
        return {
            pod["metadata"]["labels"]["redserve.dev/revision"] for pod in self.pods(service=service)
        }

    def endpoints(self, service: str, port: str = "grpc") -> list[str]:
        """Where a new connection to a Service goes: as kube-proxy decides."""
        path = (
            f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"
            f"?labelSelector=kubernetes.io/service-name={service}"
        )
        ready, serving = [], []
        for found in self.control_plane.api.get(path)["items"]:
            numbers = [p["port"] for p in found.get("ports") or [] if p.get("name") == port]
            for endpoint in found["endpoints"]:
                addresses = [f"{endpoint['addresses'][0]}:{number}" for number in numbers]
                if endpoint["conditions"].get("ready"):
                    ready += addresses
                elif endpoint["conditions"].get("serving"):
                    serving += addresses
        return sorted(ready or serving)

    def story(self) -> str:
        """What a person would look at when something is not as it should be."""
        parts = [
            self.kubectl("get", "redservices,redpools,deployments,pods", "-o", "wide"),
            self.kubectl("get", "redservices", "-o", "yaml"),
            self.kubectl("get", "events", "--sort-by=.lastTimestamp"),
        ]
        for namespace, pod, container in self.kubelet.pids():
            log = self.kubelet.log(namespace, pod, container)
            parts.append(f"--- {namespace}/{pod}/{container}\n{log[-3000:]}")
        return "\n".join(parts)


async def ask(
    address: str,
    question: Question,
    *,
    timeout_s: float = 60.0,
    choices: Choices = Choices(temperature=0.0, max_tokens=MAX_TOKENS),  # noqa: B008  # frozen
) -> str:
    """One question over a connection of its own; returns the streamed answer.

    Raises:
        Unavailable: The stream ended without its last event.
    """
    message = ChatMessage("user", (*question.pictures, question.text))
    text, is_whole = "", False
    async with asyncio.timeout(timeout_s), Router(address) as client:
        async for event in client.generate([message], choices=choices):
            if isinstance(event, AnswerText):
                text += event.text
            is_whole = is_whole or isinstance(event, AnswerFinished)
    if not is_whole:
        raise Unavailable(f"the stream broke off after {text!r}")
    return text.strip()


class Load:
    """Clients that ask again and again, each time on a new connection.

    With little pauses: a machine of two cores has services to start meanwhile.
    """

    def __init__(self, installation: Installation, service: str, num_clients: int) -> None:
        self._installation = installation
        self._service = service
        self._num_clients = num_clients
        self._ends = asyncio.Event()
        self.answered = Answered()

    async def __aenter__(self) -> Load:
        listed = questions()
        self._tasks = [
            asyncio.create_task(self._client(number, listed[number:] + listed[:number]))
            for number in range(self._num_clients)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ends.set()
        await asyncio.gather(*self._tasks)

    async def _client(self, number: int, listed: Sequence[Question]) -> None:
        async for question in self._until_end(listed):
            addresses = await asyncio.to_thread(self._installation.endpoints, self._service)
            if not addresses:
                self.answered.failed.append("no endpoint is ready")
                await asyncio.sleep(_PAUSE_S)
                continue
            try:
                said = await ask(addresses[number % len(addresses)], question)
            except (RedServeError, TimeoutError) as error:
                self.answered.failed.append(f"{addresses}: {error!r}")
            else:
                well = said == question.answer
                (self.answered.right if well else self.answered.wrong).append(said)
            await asyncio.sleep(_PAUSE_S)

    async def _until_end(self, listed: Sequence[Question]) -> AsyncIterator[Question]:
        while True:
            for question in listed:
                if self._ends.is_set():
                    return
                yield question


def manifest(**changes: dict[str, Any]) -> str:
    """The example's manifest with fields of its `spec` changed, two levels deep."""
    content = yaml.safe_load(MANIFEST.read_text())
    for name, fields in changes.items():
        content["spec"].setdefault(name, {}).update(fields)
    return json.dumps(content)
