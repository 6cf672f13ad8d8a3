"""router.proto and the domain: what an answer is judged by."""

from __future__ import annotations

from typing import Literal

from redserve.slo import Judged, Tally
from redserve.v1 import router_pb2 as pb

_Optional = Literal[
    "time_to_first_token_seconds", "time_per_output_token_seconds", "encode_latency_seconds"
]


def judged_to_proto(judged: Judged) -> pb.Judged:
    """Times that there are not stay unset."""
    return pb.Judged(
        time_to_first_token_seconds=judged.time_to_first_token_s,
        time_per_output_token_seconds=judged.time_per_output_token_s,
        request_duration_seconds=judged.request_duration_s,
        encode_latency_seconds=judged.encode_latency_s,
        events=[
            pb.SloEvents(slo=slo, good=tally.good, bad=tally.bad) for slo, tally in judged.events
        ],
    )


def judged_from_proto(message: pb.Judged) -> Judged:
    """Of a router's answer."""
    return Judged(
        time_to_first_token_s=_if_set(message, "time_to_first_token_seconds"),
        time_per_output_token_s=_if_set(message, "time_per_output_token_seconds"),
        request_duration_s=message.request_duration_seconds,
        encode_latency_s=_if_set(message, "encode_latency_seconds"),
        events=tuple((one.slo, Tally(one.good, one.bad)) for one in message.events),
    )


def _if_set(message: pb.Judged, field: _Optional) -> float | None:
    return getattr(message, field) if message.HasField(field) else None
