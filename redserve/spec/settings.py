"""Settings of each service, read from its environment once, in its `__main__`.

The only module that reads the environment. `redserve.spec.workloads` writes these values from a
manifest, for child processes and for pods alike; `to_env` and `from_env` are inverse.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from redserve.errors import ConfigError
from redserve.slo import Objective  # noqa: TC001  # pydantic reads the annotation

if TYPE_CHECKING:
    from collections.abc import Mapping

Device = Literal["auto", "cpu", "cuda"] | str
DType = Literal["auto", "float32", "bfloat16", "float16"]
TransportKind = Literal["auto", "rdma", "tcp", "grpc", "inproc"]
"""What is asked for: "rdma" and "tcp" are NIXL, "auto" is RDMA where both have it, else gRPC."""

SERVICE_ACCOUNT_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod finds its token, its namespace and the API server's certificate authority."""

MIB = 1024 * 1024


class Settings(BaseSettings):
    """Common base: every field has a default, a unit in its name and a place in the environment."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    def to_env(self) -> dict[str, str]:
        """The environment from which `from_env` rebuilds these settings."""
        prefix = str(self.model_config.get("env_prefix", ""))
        return {
            f"{prefix}{name}".upper(): value if isinstance(value, str) else json.dumps(value)
            for name, value in self.model_dump(mode="json").items()
        }

    @classmethod
    def from_env(cls) -> Self:
        """Read the process environment.

        Raises:
            ConfigError: A variable does not fit; names the variable and the mend.
        """
        try:
            return cls()
        except ValidationError as error:
            first = error.errors()[0]
            prefix = str(cls.model_config.get("env_prefix", ""))
            name = f"{prefix}{'_'.join(str(part) for part in first['loc'])}".upper()
            raise ConfigError(f"{first['msg']} (got {first.get('input')!r})", field=name) from None


class ProcessSettings(Settings):
    """What every service process needs.

    Attributes:
        name: Name of the replica in logs, metrics and timelines, for example "encoder-0".
        service: Name of the RedService.
        model_uri: `file://` or `hf://` of the checkpoint.
        model_revision: Commit, tag or branch for `hf://`.
        model_cache_dir: Where `hf://` snapshots go; the hub's default when empty.
        grpc_host, grpc_port: Where gRPC listens.
        advertise_address: host:port by which peers reach it; grpc_host:grpc_port when empty.
        metrics_port: Where `/metrics` listens (same host); 0 takes a free one.
        num_threads: Compute threads; the sum over processes must not exceed the cores.
        drain_timeout_s: Longest wait for running streams after SIGTERM, seconds.
        log_level: Least important log lines that are written.
        log_format: "text" for people, "json" for machines.
        otlp_endpoint: Where spans go by OTLP over gRPC, http(s)://host:port; no tracing when empty.
            OpenTelemetry's own variables for certificates, headers and the resource count too.
    """

    name: str = ""
    service: str = "redserve"
    model_uri: str = ""
    model_revision: str = ""
    model_cache_dir: str = ""
    grpc_host: str = "127.0.0.1"
    grpc_port: int = Field(0, ge=0, le=65535)
    advertise_address: str = ""
    metrics_port: int = Field(0, ge=0, le=65535)
    num_threads: int = Field(1, ge=1)
    drain_timeout_s: float = Field(120.0, ge=0)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    otlp_endpoint: str = ""


class EncoderSettings(ProcessSettings):
    """Settings of one encoder replica.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "auto" is the checkpoint's on a GPU, float32 on a CPU.
        batch_rows: C, the embedding rows of one encoder batch while the engine has a backlog.
        batch_rows_idle: C while the destination engine is idle: small, to start the overlap early.
        pool_bytes: Memory for embeddings, held and cached, bytes.
        preprocess_threads: Threads that decode and resize pictures.
        max_image_pixels: Most pixels of one picture.
        max_queued_rows: Rows that may wait before new work is refused.
        lease_ttl_s: How long a lease keeps an embedding, seconds.
        transport: Data path to the engine.
    """

    model_config = SettingsConfigDict(env_prefix="REDSERVE_ENCODER_", frozen=True, extra="ignore")

    device: str = "auto"
    dtype: DType = "auto"
    batch_rows: int = Field(1024, ge=1)
    batch_rows_idle: int = Field(1, ge=1)
    pool_bytes: int = Field(256 * MIB, ge=1 * MIB)
    preprocess_threads: int = Field(1, ge=1)
    max_image_pixels: int = Field(64_000_000, ge=1)
    max_queued_rows: int = Field(1_000_000, ge=1)
    lease_ttl_s: float = Field(30.0, gt=0)
    transport: TransportKind = "grpc"


class LLMSettings(ProcessSettings):
    """Settings of one LLM engine replica.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "auto" is the checkpoint's on a GPU, float32 on a CPU.
        token_budget: B, the most tokens of one micro-batch.
        tpot_target_ms: When set, B shrinks so that a predicted step keeps this target; 0 is off.
        block_size: KV slots per block.
        kv_cache_bytes: Memory for KV; 0 takes `memory_percent` of what is free, on a CPU at most
            1 GiB, because a laptop is not a server.
        memory_percent: Share of free memory for KV when kv_cache_bytes is 0.
        max_sequences: Most sequences that run at once.
        max_queued_requests: Requests that may wait before new ones are refused.
        max_model_length: Longest prompt plus output, tokens; 0 takes the checkpoint's.
        min_chunk: Least tokens of a prefill chunk while its request is still being encoded.
        prefix_cache: Whether KV of finished prompts is kept for the next ones.
        overlap: Whether prefill starts on the ready prefix; else it waits for every embedding.
        arena_bytes: Landing room for embeddings, bytes.
        quarantine_percent: Share of the landing room that hanging transfers may hold back; above it
            the engine is not ready.
        transport: Data path from the encoders.
    """

    model_config = SettingsConfigDict(env_prefix="REDSERVE_LLM_", frozen=True, extra="ignore")

    device: str = "auto"
    dtype: DType = "auto"
    token_budget: int = Field(2048, ge=1)
    tpot_target_ms: float = Field(0.0, ge=0)
    block_size: int = Field(16, ge=1)
    kv_cache_bytes: int = Field(0, ge=0)
    memory_percent: int = Field(50, ge=1, le=95)
    max_sequences: int = Field(64, ge=1)
    max_queued_requests: int = Field(512, ge=1)
    max_model_length: int = Field(0, ge=0)
    min_chunk: int = Field(16, ge=1)
    prefix_cache: bool = True
    overlap: bool = True
    arena_bytes: int = Field(256 * MIB, ge=1 * MIB)
    quarantine_percent: int = Field(25, ge=1, le=100)
    transport: TransportKind = "grpc"


class RouterSettings(ProcessSettings):
    """Settings of one router replica; `/metrics` is on its HTTP port.

    Attributes:
        model_name: Name under which the model is served.
        http_host, http_port: Where the OpenAI-compatible HTTP server listens.
        http_enabled: Whether it listens at all.
        encoder_addresses, llm_addresses: host:port of the replicas.
        encoder_service, llm_service: Headless Services of this router's revision, in
            `service_namespace`: the replicas are then the endpoints of their EndpointSlices, and
            the addresses above are not used.
        service_namespace: Namespace of these Services; the pod's own when empty.
        encoders_required: Whether the router is ready only while an encoder serves, also before
            the first one is known.
        service_account_dir: Token and certificate authority for the API server.
        max_connection_age_s: After about this time gRPC clients are asked to connect anew, so that
            those who stay for long learn of new routers, seconds; running streams end undisturbed
            on the old connection. 0 never asks.
        request_timeout_s: Deadline of a request that brings none, seconds.
        max_inflight_requests: Requests in flight before new ones are refused.
        max_images: Most images of one request.
        max_image_bytes: Most bytes of one encoded image.
        max_image_pixels: Most pixels of one image.
        max_request_bytes: Most bytes of one request, all images together.
        url_fetch: Whether http(s) image addresses are fetched.
        url_allowed_hosts: When not empty, only these hosts are fetched from.
        url_allow_private: Fetch from loopback and private addresses too; for tests and closed nets.
        url_timeout_s: Longest fetch of one image, seconds.
        num_timelines: Finished timelines that are kept for `redserve trace`.
        encoder_grace_s: How long a request waits while no encoder serves, seconds; its deadline
            may end it earlier.
        llm_grace_s: How long a request waits while no LLM replica serves, seconds. The default
            outlasts a connection that has broken, not an engine that starts: a pool that is down is
            to be told quickly.
        playground: Whether the page for people is served at / of the HTTP port.
        slos: What is promised: JSON objects with the fields `name`, `indicator`, `threshold_s`
            (null for Availability), `target` (0 to 1), `window_s` and `fair_deadline_s`.
        sampling_percent: Share of requests that are traced, percent, of those that bring no trace
            context; a client's own choice always counts.
    """

    model_config = SettingsConfigDict(env_prefix="REDSERVE_ROUTER_", frozen=True, extra="ignore")

    model_name: str = ""
    http_host: str = "127.0.0.1"
    http_port: int = Field(8000, ge=0, le=65535)
    http_enabled: bool = True
    encoder_addresses: tuple[str, ...] = ()
    llm_addresses: tuple[str, ...] = ()
    encoder_service: str = ""
    llm_service: str = ""
    service_namespace: str = ""
    encoders_required: bool = False
    service_account_dir: str = SERVICE_ACCOUNT_DIR
    max_connection_age_s: float = Field(0.0, ge=0)
    request_timeout_s: float = Field(300.0, gt=0)
    max_inflight_requests: int = Field(1024, ge=1)
    max_images: int = Field(32, ge=0)
    max_image_bytes: int = Field(20 * MIB, ge=1)
    max_image_pixels: int = Field(64_000_000, ge=1)
    max_request_bytes: int = Field(64 * MIB, ge=1)
    url_fetch: bool = False
    url_allowed_hosts: tuple[str, ...] = ()
    url_allow_private: bool = False
    url_timeout_s: float = Field(10.0, gt=0)
    num_timelines: int = Field(256, ge=1)
    encoder_grace_s: float = Field(60.0, ge=0)
    llm_grace_s: float = Field(3.0, ge=0)
    playground: bool = False
    slos: tuple[Objective, ...] = ()
    sampling_percent: float = Field(0.0, ge=0, le=100)


class OperatorSettings(Settings):
    """Settings of the Kubernetes operator.

    Attributes:
        identity: Name among the operators that compete for the Lease; the pod's name.
        namespace: Where the operator itself runs and keeps its Lease.
        watch_namespaces: Namespaces that it serves; empty serves all of them.
        router_image, encoder_image, llm_image: What pods run where a manifest names no image.
        image_pull_policy: Of all pods; empty leaves Kubernetes' default.
        image_pull_secrets: Secrets that every pod pulls images with, beside the manifest's own.
        monitoring_labels: Labels of the PodMonitors and rules of all services (JSON); a manifest's
            own win.
        runbooks_url: Address of the folder of runbooks that alerts link to; empty is this
            project's.
        kubeconfig: How to reach the API server; empty takes the pod's ServiceAccount.
        service_account_dir: Token and certificate authority for the API server.
        leader_election: Whether to wait for the Lease before writing anything.
        lease_name: Name of the Lease; operators that serve the same namespaces share it.
        lease_duration_s: How long a Lease lasts that is not renewed, seconds.
        lease_renew_s: Time between two renewals, seconds.
        num_workers: Services that are reconciled at once.
        debounce_s: How long changes of one service are gathered before it is reconciled, seconds.
        resync_s: Time after which a service is looked at although nothing was seen to change.
        request_timeout_s: Longest call of the API server, seconds.
        stuck_after_s: Liveness fails when a service has waited this long for a worker, seconds.
        http_host, http_port: Where probes and `/metrics` listen.
        log_level, log_format: As for the services.
    """

    model_config = SettingsConfigDict(env_prefix="REDSERVE_OPERATOR_", frozen=True, extra="ignore")

    identity: str = ""
    namespace: str = "redserve-system"
    watch_namespaces: tuple[str, ...] = ()
    router_image: str = "redserve/redserve-router:latest"
    encoder_image: str = "redserve/redserve-encoder:latest"
    llm_image: str = "redserve/redserve-llm:latest"
    image_pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = ""
    image_pull_secrets: tuple[str, ...] = ()
    monitoring_labels: dict[str, str] = Field({})
    runbooks_url: str = Field("", pattern=r"^(https?://[^\s]+)?$")
    kubeconfig: str = ""
    service_account_dir: str = SERVICE_ACCOUNT_DIR
    leader_election: bool = True
    lease_name: str = Field("redserve-operator", min_length=1)
    lease_duration_s: float = Field(15.0, gt=0)
    lease_renew_s: float = Field(5.0, gt=0)
    num_workers: int = Field(8, ge=1)
    debounce_s: float = Field(0.3, ge=0)
    resync_s: float = Field(600.0, gt=0)
    request_timeout_s: float = Field(30.0, gt=0)
    stuck_after_s: float = Field(300.0, gt=0)
    http_host: str = "0.0.0.0"
    http_port: int = Field(8080, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "json"


class FetchSettings(Settings):
    """Settings of the model loader: a Job, or the init container of a pod.

    Attributes:
        model_uri: `hf://organisation/name`.
        model_revision: Commit, tag or branch.
        cache_dir: Where the snapshot goes; the same as the services' `model_cache_dir`.
        weights: Whether weights are wanted; a router reads none.
        report_file: Where the resolved commit is written for the operator (Kubernetes' termination
            message); empty writes none.
        log_level, log_format: As for the services.
    """

    model_config = SettingsConfigDict(env_prefix="REDSERVE_FETCH_", frozen=True, extra="ignore")

    model_uri: str = ""
    model_revision: str = ""
    cache_dir: str = ""
    weights: bool = True
    report_file: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "json"


def kubernetes_api() -> str | None:
    """https://host:port of the API server as a pod is told it; None outside of a cluster."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        return None
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def base_environment(overrides: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with `overrides`, for a child process."""
    return {**os.environ, **overrides}


def compute_environment(num_threads: int) -> dict[str, str]:
    """Thread limits of a compute process.

    libgomp spins at its barriers and would starve the other processes of the machine; passive
    waiting costs microseconds and keeps them fair.
    """
    threads = str(num_threads)
    return {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "passive",
        "TOKENIZERS_PARALLELISM": "false",
    }


def runtime_directory() -> Path:
    """Where a running service of this user leaves word of itself; not made yet."""
    chosen = os.environ.get("XDG_RUNTIME_DIR", "")
    if chosen:
        return Path(chosen) / "redserve"
    return Path(tempfile.gettempdir()) / f"redserve-{os.getuid()}"


def visible_devices() -> tuple[str, ...] | None:
    """The CUDA devices that the environment leaves visible; None when it does not say."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return None
    return tuple(part.strip() for part in listed.split(",") if part.strip() not in ("", "-1"))


def ucx_transports() -> str:
    """What UCX may use, by the environment as it is (`UCX_TLS`); empty when it says nothing."""
    return os.environ.get("UCX_TLS", "")


def ucx_net_devices() -> str:
    """Devices that UCX may use, likewise (`UCX_NET_DEVICES`); empty when it says nothing."""
    return os.environ.get("UCX_NET_DEVICES", "")


def reader_environment() -> dict[str, str]:
    """What a process that others read from over TCP inherits: nothing that is a secret."""
    names = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")
    prefixes = ("UCX_", "NIXL_", "LD_", "PYTHON", "LC_")
    return {
        name: value
        for name, value in os.environ.items()
        if name in names or name.startswith(prefixes)
    }


def ucx_in_force() -> dict[str, str]:
    """Every variable of UCX that the environment sets, by name."""
    return {name: os.environ[name] for name in sorted(os.environ) if name.startswith("UCX_")}
