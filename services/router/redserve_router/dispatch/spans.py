"""The span of a request: attributes by the names that OpenTelemetry has for generative models.

request ─┬─ preprocess, describe, tokenize           router
         ├─ generate (client) ── generate (server)   LLM replica: queue, transfer, prefill, decode
         └─ encode (client) ─┬─ item (server)        encoder: queue, preprocess, encode, publish
                             └─ item (server)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redserve.telemetry.clock import now_ns
from redserve_router.validate import id_to_show

if TYPE_CHECKING:
    from redserve.domain import SamplingParams
    from redserve.errors import RedServeError
    from redserve.telemetry.timeline import Timeline
    from redserve.telemetry.tracing import Attribute, Span
    from redserve_router.dispatch.life import RequestLife
    from redserve_router.dispatch.preparation import Prepared
    from redserve_router.dispatch.services import RouterServices
    from redserve_router.question import Question

OPERATION: Final = "chat"
PROVIDER: Final = "redserve"


def start_span(question: Question, services: RouterServices) -> Span:
    """The span of a request, from its arrival.

    The model is the one that is served: what the client wrote there may be anything.
    """
    model = services.model_name
    return services.tracing.span(
        f"{OPERATION} {model}",
        question.received_ns,
        parent=question.context,
        attributes={
            "gen_ai.operation.name": OPERATION,
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": model,
            "redserve.request_id": id_to_show(question.request_id),
        },
    )


def describe_prepared(span: Span, prepared: Prepared) -> None:
    """Say what is asked for, in figures."""
    if span.recording:
        span.set(
            {
                **_sampling(prepared.sampling),
                "redserve.images": len(prepared.items),
                "redserve.image_tokens": sum(item.num_rows for item in prepared.items),
            }
        )


def call_span(parent: Span, name: str, method: str, address: str, **figures: int) -> Span:
    """The span of a call to another process, from now on; whoever asks for it ends it.

    Args:
        parent: Of the request.
        name: Its own.
        method: Service and method of gRPC.
        address: host:port of the replica.
        figures: More attributes, as redserve.NAME.
    """
    if not parent.recording:
        return parent
    host, _, port = address.rpartition(":")
    service, _, rpc = method.rpartition("/")
    attributes: dict[str, Attribute] = {
        "rpc.system": "grpc",
        "rpc.service": service,
        "rpc.method": rpc,
        "server.address": host.strip("[]"),
        "server.port": int(port) if port.isdigit() else 0,
    }
    attributes |= {f"redserve.{key}": value for key, value in figures.items()}
    return parent.child(name, now_ns(), kind="client", attributes=attributes)


def end_span(
    life: RequestLife, services: RouterServices, timeline: Timeline, error: RedServeError | None
) -> None:
    """Say what came of it, and end it."""
    span = life.span
    if not span.recording:
        return
    span.add_bars(bar for bar in timeline.bars if bar.lane == services.name)
    for name, at_ns in (
        ("admitted", life.admitted_ns),
        ("first_token", timeline.first_token_ns),
        ("last_token", life.last_token_ns),
    ):
        if at_ns:
            span.event(name, at_ns)
    span.set(_outcome(life, services, timeline))
    if error is not None:
        span.fail(error.reason)
    span.end(timeline.finished_ns)


def _sampling(sampling: SamplingParams) -> dict[str, Attribute]:
    # Neither stop texts nor anything else that a client wrote.
    return {
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.top_k": sampling.top_k,
        "gen_ai.request.seed": sampling.seed,
        "gen_ai.request.frequency_penalty": sampling.frequency_penalty,
        "gen_ai.request.presence_penalty": sampling.presence_penalty,
    }


def _outcome(
    life: RequestLife, services: RouterServices, timeline: Timeline
) -> dict[str, Attribute]:
    said: dict[str, Attribute] = {
        "gen_ai.response.id": life.origin.request_id,
        "gen_ai.response.model": services.model_name,
        "gen_ai.usage.input_tokens": life.num_prompt_tokens,
        "gen_ai.usage.output_tokens": len(life.made),
    }
    if life.finished is not None:
        said["gen_ai.response.finish_reasons"] = (life.finished.reason.name.lower(),)
        said["gen_ai.usage.cache_read.input_tokens"] = life.finished.usage.num_cached_tokens
    if timeline.first_token_ns:
        waited_ns = timeline.first_token_ns - timeline.received_ns
        said["redserve.time_to_first_token_s"] = waited_ns / 1e9
    if timeline.overlap_ratio is not None:
        said["redserve.overlap_ratio"] = timeline.overlap_ratio
    return said
