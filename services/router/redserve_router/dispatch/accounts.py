"""What is written down of a request: metrics, promises, timeline, span, log line.

Promises hear of a first token when it leaves and of an item when it is published: a request may
go on for minutes. All else is written when the request ends.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from redserve.errors import Cancelled
from redserve.slo import judged_of
from redserve.telemetry.first_token import first_token_parts
from redserve.telemetry.log import get_logger
from redserve.telemetry.transport_times import transport_times
from redserve.telemetry.words import OK
from redserve_router.dispatch.item_state import Outcome
from redserve_router.dispatch.reckoning import reckon, reckon_item
from redserve_router.dispatch.spans import end_span

if TYPE_CHECKING:
    from redserve.errors import RedServeError
    from redserve.slo import Ended, Judged
    from redserve.telemetry.metrics.router import RouterMetrics
    from redserve.telemetry.timeline import Timeline
    from redserve_router.dispatch.item_state import ItemState
    from redserve_router.dispatch.life import RequestLife
    from redserve_router.dispatch.services import RouterServices

log = get_logger()


def note_first_token(life: RequestLife, services: RouterServices) -> None:
    """The first token of a request leaves now; once per request."""
    waited_s = (life.last_token_ns - life.received_ns) / 1e9
    services.ledger.note_first_token(waited_s)
    services.metrics.ttft.observe(waited_s, _exemplar(life))


def note_item(state: ItemState, services: RouterServices) -> None:
    """An item has been published; again is no second event."""
    if state.judged is None:
        state.judged = reckon_item(state, state.ended_ns)
        services.ledger.note_item(state.judged)


def judge_answer(life: RequestLife, services: RouterServices, timeline: Timeline) -> Judged:
    """What the books say of a request that is complete, once it is closed; counts nothing."""
    rest = reckon(life, timeline, OK)
    noted = tuple(state.judged for state in life.items if state.judged is not None)
    ended = replace(rest, items=(*noted, *rest.items))
    return judged_of(ended, services.ledger.judge(ended))


def close_accounts(
    life: RequestLife, services: RouterServices, timeline: Timeline, error: RedServeError | None
) -> None:
    """Write down a request that has ended, however it ended.

    Args:
        life: The request.
        services: Who keeps the books.
        timeline: Of it, complete.
        error: What it ended by; `Cancelled` when the client left.
    """
    code = OK if error is None else error.grpc_code
    reckoned = reckon(life, timeline, code)
    services.ledger.note(reckoned)
    _count(life, services.metrics, code)
    if error is None:
        _measure(life, services.metrics, reckoned, timeline)
    if life.num_prompt_tokens:
        services.timelines.keep(timeline)
    end_span(life, services, timeline, error)
    _log(life, services, reckoned, timeline, error)


def _count(life: RequestLife, metrics: RouterMetrics, code: str) -> None:
    metrics.requests.labels(code).inc()
    metrics.prompt_tokens.inc(life.num_prompt_tokens)
    metrics.output_tokens.inc(len(life.made))
    for state in life.items:
        if state.whole is not None:
            metrics.items.labels(state.whole.value).inc()
        elif code not in (OK, Cancelled.grpc_code):
            metrics.items.labels(Outcome.FAILED.value).inc()


def _measure(
    life: RequestLife, metrics: RouterMetrics, reckoned: Ended, answered: Timeline
) -> None:
    """Latencies of a whole answer."""
    exemplar = _exemplar(life)
    metrics.duration.observe(reckoned.duration_s, exemplar)
    if reckoned.time_per_output_token_s is not None:
        metrics.tpot.observe(reckoned.time_per_output_token_s, exemplar)
    if answered.overlap_ratio is not None:
        metrics.overlap_ratio.observe(answered.overlap_ratio)
    for part, spent_ns in first_token_parts(answered).items():
        metrics.first_token_part.labels(part).observe(spent_ns / 1e9)
    for item in transport_times(answered.bars):
        metrics.transport_item.labels("exposed").observe(item.exposed_ns / 1e9)
        metrics.transport_item.labels("hidden").observe(item.hidden_ns / 1e9)


def _exemplar(life: RequestLife) -> dict[str, str] | None:
    """A request that is traced leads from the buckets of its latencies to its trace."""
    return {"trace_id": life.span.context.trace_id} if life.span.recording else None


def _log(
    life: RequestLife,
    services: RouterServices,
    reckoned: Ended,
    timeline: Timeline,
    error: RedServeError | None,
) -> None:
    """One line per request: ids and figures, nothing that the client sent."""
    fields: dict[str, Any] = {
        **life.origin.log_ids,
        **({"sequence_id": life.sequence_id} if life.origin.request_id else {}),
        "code": OK if error is None else error.grpc_code,
        "model": services.model_name,
        "images": len(life.items),
        "image_tokens": sum(state.item.num_rows for state in life.items),
        "prompt_tokens": life.num_prompt_tokens,
        "output_tokens": len(life.made),
        "duration_ms": round(reckoned.duration_s * 1e3, 1),
    }
    if reckoned.first_token_s is not None:
        fields["ttft_ms"] = round(reckoned.first_token_s * 1e3, 1)
    if timeline.overlap_ratio is not None:
        fields["overlap"] = round(timeline.overlap_ratio, 3)
    if life.finished is not None:
        fields["cached_tokens"] = life.finished.usage.num_cached_tokens
        fields["finish_reason"] = life.finished.reason.name.lower()
    write = log.info
    if error is not None:
        fields["reason"] = error.reason
        if error.field is not None:
            fields["field"] = error.field
        if error.http_status >= 500:
            # Its sentence is about us. That of a client's mistake may quote what the client sent.
            write, fields["error"] = log.warning, str(error)
    write("request ended", **fields)
