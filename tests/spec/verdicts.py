"""Manifests and what becomes of them: the same verdict from the models and the API server."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Final

from redserve.spec.problems import field_steps

BASE: Final[dict[str, Any]] = {
    "apiVersion": "redserve.dev/v1alpha1",
    "kind": "RedService",
    "metadata": {"name": "demo"},
    "spec": {"model": {"uri": "hf://a/b"}, "encoder": {}, "llm": {}},
}
ABSENT: Final = object()
"""A value that takes the field away."""


@dataclass(frozen=True, slots=True)
class Case:
    """A manifest, as what differs from `BASE`.

    Attributes:
        name: What is tried.
        changes: Path -> value.
        field: The field that is refused, as the models write it; None is accepted.
        named: How the API server writes it, when it cannot point as deep; `field` if empty.
    """

    name: str
    changes: dict[str, Any]
    field: str | None = None
    named: str = ""

    def manifest(self) -> dict[str, Any]:
        """The whole object; the caller's own."""
        made = copy.deepcopy(BASE)
        for path, value in self.changes.items():
            *parents, last = field_steps(path)
            here: Any = made
            for step in parents:
                here = here.setdefault(step, {})
            if value is ABSENT:
                del here[last]
            else:
                here[last] = copy.deepcopy(value)
        return made


def _slo(**fields: Any) -> list[dict[str, Any]]:
    return [{"name": "a", "indicator": "Availability", **fields}]


ENCODER: Final = "spec.encoder"
LLM: Final = "spec.llm"
MEDIA: Final = "spec.router.media"

ACCEPTED: Final = (
    Case("the smallest", {}),
    Case("every struct empty", {f"spec.{one}": {} for one in ("router", "transport", "engine")}),
    Case("nothing for what may be left out", {"spec.router": None, "spec.encoder.env": None}),
    Case("nothing for a default", {"spec.llm.tokenBudget": None, "spec.reconcile": None}),
    Case("nothing for an amount", {f"{LLM}.resources": {"limits": {"cpu": None}}}),
    Case("longest name", {"metadata.name": "a" * 40}),
    Case("labels and annotations", {"metadata.labels": {"example.com/a": "B.c", "b": ""},
                                    "metadata.annotations": {"Example.com/x": "any text: {}"}}),
    Case("what the API server writes", {"metadata.generation": 3, "metadata.finalizers": ["a/b"],
                                        "metadata.creationTimestamp": "2026-01-01T00:00:00Z"}),
    Case("status", {"status": {"observedGeneration": 1}}),
    *(Case(f"scheme {scheme}", {"spec.model.uri": f"{scheme}://a/b"})
      for scheme in ("hf", "file", "pvc", "s3", "gs", "oci")),
    Case("no replicas", {f"{LLM}.replicas": 0}),
    Case("most replicas", {f"{LLM}.replicas": 1000}),
    Case("whole fraction", {f"{LLM}.replicas": 2.0}),
    Case("scaling", {f"{LLM}.scaling": {"minReplicas": 0, "maxReplicas": 4}}),
    *(Case(f"quantity {text}", {f"{LLM}.arenaSize": text})
      for text in ("1Mi", "1.5Gi", "2e9", "1048576", 1048576, "2M", "1E", ".5Gi", "5.Gi")),
    Case("no shared memory", {f"{LLM}.sharedMemorySize": 0}),
    Case("resources", {f"{LLM}.resources": {"limits": {"nvidia.com/gpu": 1, "cpu": "500m"},
                                            "requests": {"memory": "1Gi"},
                                            "claims": [{"name": "a"}, {"name": "b"}]}}),
    Case("shares", {f"{LLM}.rollout": {"maxSurge": "25%", "maxUnavailable": "100%"}}),
    Case("counts as texts", {f"{LLM}.rollout": {"maxSurge": "0", "maxUnavailable": "3"}}),
    Case("environment", {f"{LLM}.env": [{"name": "a.b-C d"}, {"name": "B", "value": "ü"},
                                        {"name": "C", "valueFrom": {"any": {"thing": [1]}}}]}),
    Case("pod template", {f"{LLM}.podTemplate": {"any": [{"thing": None}], "x": 1.5}}),
    Case("modalities", {f"{ENCODER}.modalities": ["Image", "Video", "Audio"]}),
    Case("page", {"spec.router.playground": "Enabled"}),
    Case("no page without HTTP", {"spec.router": {"openAI": "Disabled", "playground": "Auto"}}),
    Case("both ports free", {"spec.router.http": {"port": 0}, "spec.router.grpc": {"port": 0}}),
    Case("hosts", {MEDIA: {"urlFetch": "Enabled", "allowedHosts": ["a", "a"]}}),
    Case("RDMA", {"spec.transport": {"type": "RDMA", "rdma": {"resourceName": "rdma/hca_a"}}}),
    *(Case(f"objective {text!r}", {"spec.slos": _slo(objectivePercent=text)})
      for text in (1, 99, "99.9", "0.001", "0.5", "99.999")),
    Case("eight promises", {"spec.slos": [_slo(name=f"a{n}")[0] for n in range(8)]}),
    Case("tracing", {"spec.monitoring": {"tracing": {"otlpEndpoint": "https://a:4317"}}}),
    Case("tracing without a port", {"spec.monitoring": {"tracing": {"otlpEndpoint": "http://[::1]/",
                                                                    "samplingPercent": 0}}}),
    Case("claim", {"spec.model.cache": {"persistentVolumeClaim": {"claimName": "a.b-c"}}}),
    Case("scratch space", {"spec.model.cache": {"ephemeral": {"sizeLimit": "40Gi"}}}),
    Case("token", {"spec.model.tokenSecretRef": {"name": "hub", "key": "a.B_c-1"}}),
    Case("annotated service", {"spec.router.service.annotations": {"a.b/C": "x" * 4096}}),
)  # fmt: skip

REFUSED: Final = (
    # Unknown and missing.
    Case("unknown", {"spec.zzz": 1}, "spec.zzz"),
    Case("unknown inside", {f"{ENCODER}.replcas": 1}, f"{ENCODER}.replcas"),
    Case("unknown without a value", {f"{ENCODER}.replcas": None}, f"{ENCODER}.replcas"),
    Case("unknown in a list", {"spec.slos": _slo(x=1)}, "spec.slos[0].x"),
    Case("unknown at the top", {"sepc": {}}, "sepc"),
    Case("unknown in metadata", {"metadata.lables": {}}, "metadata.lables"),
    Case("unknown in resources", {f"{LLM}.resources.limit": {}}, f"{LLM}.resources.limit"),
    Case("other case", {f"{LLM}.tokenbudget": 64}, f"{LLM}.tokenbudget"),
    *(Case(f"no {name}", {f"spec.{name}": ABSENT}, f"spec.{name}")
      for name in ("model", "encoder", "llm")),
    Case("nothing for what is required", {"spec.encoder": None}, "spec.encoder"),
    Case("no uri", {"spec.model": {}}, "spec.model.uri"),
    Case("no spec", {"spec": ABSENT}, "spec"),
    Case("no maxReplicas", {f"{LLM}.scaling": {}}, f"{LLM}.scaling.maxReplicas"),
    Case("no indicator", {"spec.slos": [{"name": "a"}]}, "spec.slos[0].indicator"),
    Case("no resourceName", {"spec.transport.rdma": {}}, "spec.transport.rdma.resourceName"),
    # Types.
    Case("text for a number", {f"{LLM}.replicas": "2"}, f"{LLM}.replicas"),
    Case("fraction", {f"{LLM}.replicas": 2.5}, f"{LLM}.replicas"),
    Case("truth for a number", {f"{LLM}.replicas": True}, f"{LLM}.replicas"),
    Case("number for a text", {"spec.model.name": 1}, "spec.model.name"),
    Case("text for a truth", {"spec.model.cache": {"persistentVolumeClaim": {
        "claimName": "a", "readOnly": "true"}}},
        "spec.model.cache.persistentVolumeClaim.readOnly"),
    Case("text for a struct", {"spec.router": "x"}, "spec.router"),
    Case("list for a struct", {"spec.router": []}, "spec.router"),
    Case("text for a list", {f"{LLM}.extraArgs": "x"}, f"{LLM}.extraArgs"),
    Case("number in a list", {f"{LLM}.extraArgs": ["x", 1]}, f"{LLM}.extraArgs[1]"),
    Case("nothing in a list", {f"{LLM}.extraArgs": [None]}, f"{LLM}.extraArgs[0]"),
    Case("text for a template", {f"{LLM}.podTemplate": "x"}, f"{LLM}.podTemplate"),
    Case("list for a source", {f"{LLM}.env": [{"name": "A", "valueFrom": []}]},
         f"{LLM}.env[0].valueFrom"),
    Case("number for a value", {f"{LLM}.env": [{"name": "A", "value": 1}]}, f"{LLM}.env[0].value"),
    # Choices.
    Case("bad choice", {f"{LLM}.device": "Cuda"}, f"{LLM}.device"),
    Case("truth for a switch", {f"{LLM}.overlap": True}, f"{LLM}.overlap"),
    Case("bad choice in a list", {f"{ENCODER}.modalities": ["Text"]}, f"{ENCODER}.modalities[0]"),
    Case("bad indicator", {"spec.slos": _slo(indicator="TTFT")}, "spec.slos[0].indicator"),
    # Bounds.
    Case("too few", {f"{LLM}.replicas": -1}, f"{LLM}.replicas"),
    Case("too many", {f"{LLM}.replicas": 1001}, f"{LLM}.replicas"),
    Case("huge", {f"{LLM}.tokenBudget": 2**40}, f"{LLM}.tokenBudget"),
    Case("port", {"spec.router.http.port": 65536}, "spec.router.http.port"),
    Case("long text", {f"{LLM}.image": "x" * 513}, f"{LLM}.image"),
    Case("empty text", {f"{LLM}.image": ""}, f"{LLM}.image"),
    Case("long text in a list", {f"{LLM}.extraArgs": ["x" * 1025]}, f"{LLM}.extraArgs[0]"),
    Case("long list", {f"{LLM}.extraArgs": ["x"] * 65}, f"{LLM}.extraArgs"),
    Case("empty list", {f"{ENCODER}.modalities": []}, f"{ENCODER}.modalities"),
    Case("nine promises", {"spec.slos": [_slo(name=f"a{n}")[0] for n in range(9)]}, "spec.slos"),
    Case("large mapping", {f"{LLM}.resources.limits": {f"a{n}": 1 for n in range(33)}},
         f"{LLM}.resources.limits"),
    Case("long value in a mapping", {"spec.router.service.annotations": {"a": "x" * 4097}},
         "spec.router.service.annotations.a"),
    # Quantities and shares.
    *(Case(f"quantity {text!r}", {f"{LLM}.arenaSize": text}, f"{LLM}.arenaSize")
      for text in ("12MB", "1mi", "", "-1Gi", "+1Gi", " 1Gi", "1Ki", 1024, -1, 1.5, True, "1e999",
                   2**60, "9" * 33)),
    Case("quantity in a mapping", {f"{LLM}.resources.limits": {"cpu": 0.5}},
         f"{LLM}.resources.limits.cpu"),
    Case("negative amount", {f"{LLM}.resources.limits": {"cpu": -1}},
         f"{LLM}.resources.limits.cpu"),
    *(Case(f"share {text!r}", {f"{LLM}.rollout.maxSurge": text}, f"{LLM}.rollout.maxSurge")
      for text in ("101%", "a", "-1", -1, 10_000, "1.5", 0.5, "%", "١")),
    *(Case(f"objective {text!r}", {"spec.slos": _slo(objectivePercent=text)},
           "spec.slos[0].objectivePercent")
      for text in (0, 100, "0", "100", "0.0", "0.0001", 99.9, "99,9", "05")),
    # Patterns.
    *(Case(f"name {text!r}", {"metadata.name": text}, "metadata.name")
      for text in ("Demo", "1a", "a_b", "-a", "a-", "a.b", "", "a" * 41)),
    Case("label", {"metadata.labels": {"a": "b c"}}, "metadata.labels.a", "metadata.labels"),
    Case("label's key", {"metadata.labels": {"a b": "c"}}, "metadata.labels"),
    Case("annotation's key", {"metadata.annotations": {"a//b": "c"}}, "metadata.annotations"),
    Case("many annotations", {"metadata.annotations": {"a": "x" * 2**18}}, "metadata.annotations"),
    Case("namespace", {"metadata.namespace": "A"}, "metadata.namespace", "namespace"),
    Case("resource's key", {f"{LLM}.resources.limits": {"a b": 1}}, f"{LLM}.resources.limits"),
    Case("service's annotation", {"spec.router.service.annotations": {"a b": "c"}},
         "spec.router.service.annotations"),
    Case("variable", {f"{LLM}.env": [{"name": "A=B"}]}, f"{LLM}.env[0].name"),
    Case("variable in Greek", {f"{LLM}.env": [{"name": "α"}]}, f"{LLM}.env[0].name"),
    Case("U+0000", {f"{LLM}.env": [{"name": "A", "value": "a\0b"}]}, f"{LLM}.env[0].value"),
    Case("secret", {"spec.imagePullSecrets": [{"name": "A"}]}, "spec.imagePullSecrets[0].name"),
    Case("secret's key", {"spec.model.tokenSecretRef": {"name": "a", "key": "a/b"}},
         "spec.model.tokenSecretRef.key"),
    Case("account", {"spec.serviceAccountName": "a..b"}, "spec.serviceAccountName"),
    Case("device's name", {"spec.transport.rdma": {"resourceName": "rdma/a/b"}},
         "spec.transport.rdma.resourceName"),
    Case("promise's name", {"spec.slos": _slo(name="TTFT")}, "spec.slos[0].name"),
    Case("trace receiver", {"spec.monitoring.tracing": {"otlpEndpoint": "collector:4317"}},
         "spec.monitoring.tracing.otlpEndpoint"),
    Case("trace receiver's path",
         {"spec.monitoring.tracing": {"otlpEndpoint": "http://collector:4318/v1/traces"}},
         "spec.monitoring.tracing.otlpEndpoint"),
    Case("trace receiver's port",
         {"spec.monitoring.tracing": {"otlpEndpoint": "http://collector:65536"}},
         "spec.monitoring.tracing.otlpEndpoint"),
    # Twice.
    Case("promise twice", {"spec.slos": _slo() * 2}, "spec.slos"),
    Case("variable twice", {f"{LLM}.env": [{"name": "A"}] * 2}, f"{LLM}.env"),
    Case("claim twice", {f"{LLM}.resources": {"claims": [{"name": "a"}] * 2}},
         f"{LLM}.resources.claims"),
    Case("secret twice", {"spec.imagePullSecrets": [{"name": "a"}] * 2}, "spec.imagePullSecrets"),
    Case("modality twice", {f"{ENCODER}.modalities": ["Image"] * 2}, f"{ENCODER}.modalities"),
    # Rules over several fields: at least one each.
    Case("both sizes", {f"{LLM}.replicas": 1, f"{LLM}.scaling": {"maxReplicas": 2}}, LLM),
    Case("min above max", {f"{LLM}.scaling": {"minReplicas": 3, "maxReplicas": 2}},
         f"{LLM}.scaling.minReplicas"),
    Case("default min above max", {"spec.router.scaling": {"minReplicas": 2, "maxReplicas": 1}},
         "spec.router.scaling.minReplicas"),
    Case("scheme", {"spec.model.uri": "http://x/y"}, "spec.model.uri"),
    Case("nothing after the scheme", {"spec.model.uri": "file://"}, "spec.model.uri"),
    Case("no cache in cache", {"spec.model.cache": {}}, "spec.model.cache"),
    Case("both caches", {"spec.model.cache": {"ephemeral": {"sizeLimit": "1Gi"},
                                              "persistentVolumeClaim": {"claimName": "a"}}},
         "spec.model.cache"),
    Case("RDMA without rdma", {"spec.transport.type": "RDMA"}, "spec.transport.rdma"),
    Case("no threshold", {"spec.slos": _slo(indicator="RequestLatency")},
         "spec.slos[0].thresholdMilliseconds"),
    Case("a threshold of nothing",
         {"spec.slos": _slo(indicator="Availability", thresholdMilliseconds=7)},
         "spec.slos[0].thresholdMilliseconds"),
    Case("both memories", {f"{LLM}.kvCacheSize": "1Gi", f"{LLM}.memoryPercent": 50},
         f"{LLM}.memoryPercent"),
    Case("minChunk", {f"{LLM}.minChunk": 64, f"{LLM}.tokenBudget": 32}, f"{LLM}.minChunk"),
    Case("minChunk's default", {f"{LLM}.tokenBudget": 8}, f"{LLM}.minChunk"),
    Case("idle rows", {f"{ENCODER}.batchRows": 8, f"{ENCODER}.idleBatchRows": 9},
         f"{ENCODER}.idleBatchRows"),
    Case("page without HTTP", {"spec.router": {"openAI": "Disabled", "playground": "Enabled"}},
         "spec.router.playground"),
    Case("same port", {"spec.router.http.port": 50051}, "spec.router.http.port"),
    Case("hosts without fetching", {f"{MEDIA}.allowedHosts": ["a"]}, f"{MEDIA}.allowedHosts"),
    Case("image above request", {f"{MEDIA}.maxRequestSize": "1Mi"}, f"{MEDIA}.maxImageSize"),
    Case("image above request, other units",
         {f"{MEDIA}.maxRequestSize": "1e6", f"{MEDIA}.maxImageSize": 1000001},
         f"{MEDIA}.maxImageSize"),
    Case("value and source", {f"{LLM}.env": [{"name": "A", "value": "", "valueFrom": {}}]},
         f"{LLM}.env[0]"),
    Case("our variable", {f"{LLM}.env": [{"name": "REDSERVE_X"}]}, f"{LLM}.env[0].name"),
    Case("nothing may move", {f"{LLM}.rollout": {"maxSurge": 0, "maxUnavailable": "0%"}},
         f"{LLM}.rollout.maxUnavailable"),
)  # fmt: skip
