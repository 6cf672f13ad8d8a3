"""Converters are inverse, and refuse what a client must not write with the field's path."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.domain import (
    FinishReason,
    Item,
    ItemMetadata,
    SamplingParams,
    SequenceKey,
    SequenceRequest,
    Span,
    TokenLogprob,
    TokenOutput,
    Usage,
)
from redserve.errors import ALL_ERRORS, CorruptTransfer, InternalError, InvalidArgument
from redserve.slo import Judged, Tally
from redserve.telemetry.timeline import Bar, Timeline
from redserve.transport.base import Descriptor, PeerInfo
from redserve.transport.buffer import Segment
from redserve.v1 import encoder_pb2, llm_pb2, types_pb2
from redserve.wire import encoder, llm, router, transport, types
from redserve.wire.judged import judged_from_proto
from tests.strategies import effort

texts = st.text(max_size=20)
uint32 = st.integers(0, 2**32 - 1)
uint64 = st.integers(0, 2**64 - 1)
positive_int64 = st.integers(1, 2**63 - 1)
stamps = st.integers(0, 2**63 - 1)
logprobs = st.floats(max_value=0.0, allow_nan=False)
grids = st.one_of(st.just(()), st.tuples(uint32, uint32, uint32))

samplings = st.builds(
    SamplingParams,
    temperature=st.floats(0, types.MAX_TEMPERATURE),
    top_k=uint32,
    top_p=st.floats(0, 1, exclude_min=True),
    seed=uint64,
    repetition_penalty=st.floats(0, types.MAX_REPETITION_PENALTY, exclude_min=True),
    presence_penalty=st.floats(-types.MAX_PENALTY, types.MAX_PENALTY),
    frequency_penalty=st.floats(-types.MAX_PENALTY, types.MAX_PENALTY),
    stop=st.lists(st.text(min_size=1, max_size=9), max_size=types.MAX_STOPS).map(tuple),
    stop_token_ids=st.lists(uint32, max_size=5).map(tuple),
    max_tokens=positive_int64,
    ignore_eos=st.booleans(),
    num_logprobs=st.one_of(st.none(), st.integers(0, types.MAX_LOGPROBS)),
)

metadata = st.builds(ItemMetadata, num_rows=uint32, grid=grids, replacement_text=texts)
usages = st.builds(Usage, uint32, uint32, uint32, uint32)
token_outputs = st.builds(
    TokenOutput,
    token_id=uint32,
    logprob=st.one_of(st.none(), logprobs),
    top=st.lists(st.builds(TokenLogprob, uint32, texts, logprobs), max_size=3).map(tuple),
)
bars = st.builds(
    Bar,
    lane=texts,
    name=texts,
    start_ns=stamps,
    end_ns=stamps,
    item_index=st.one_of(st.none(), uint32),
    num_tokens=uint32,
    detail=texts,
)
timelines = st.builds(
    Timeline,
    request_id=texts,
    bars=st.lists(bars, max_size=4).map(tuple),
    overlap_ratio=st.one_of(st.none(), st.floats(0, 1)),
    received_ns=stamps,
    first_token_ns=stamps,
    finished_ns=stamps,
)
peers = st.builds(
    PeerInfo,
    incarnation=texts,
    backend=texts,
    address=texts,
    metadata=st.binary(max_size=64),
    pool_address=uint64,
    pool_bytes=uint64,
    memory=st.sampled_from(["dram", "vram"]),
    device_id=uint32,
)
descriptors = st.builds(
    Descriptor,
    incarnation=texts,
    segments=st.lists(
        st.builds(Segment, offset=uint64, num_bytes=st.integers(1, 2**64 - 1)), min_size=1
    ).map(tuple),
    lease_id=uint64,
    ttl_s=st.integers(0, 2**32 - 1).map(lambda ms: ms / 1e3),
    checksum=st.one_of(st.none(), uint64),
)


@st.composite
def sequence_requests(draw: st.DrawFn) -> SequenceRequest:
    position, items = 0, []
    for index in range(draw(st.integers(0, 3))):
        spans = []
        for _ in range(draw(st.integers(1, 3))):
            position += draw(st.integers(0, 5))
            spans.append(Span(position, draw(st.integers(1, 9))))
            position = spans[-1].end
        num_rows = sum(span.length for span in spans)
        content_hash = draw(st.binary(min_size=32, max_size=32))
        items.append(Item(index, content_hash, num_rows, tuple(spans), draw(grids)))
    length = position + draw(st.integers(1, 5))
    return SequenceRequest(
        key=SequenceKey(draw(st.text(min_size=1, max_size=9)), draw(uint32)),
        token_ids=tuple(draw(st.lists(uint32, min_size=length, max_size=length))),
        items=tuple(items),
        sampling=draw(samplings),
        resume_token_ids=tuple(draw(st.lists(uint32, max_size=4))),
    )


def through_bytes(proto: Any) -> Any:
    return type(proto).FromString(proto.SerializeToString())


@effort(100)
@given(samplings)
def test_sampling_is_inverse(value: SamplingParams):
    # Defaults that differ everywhere: nothing of them may shine through.
    defaults = SamplingParams(temperature=9.0, top_k=9, top_p=0.9, seed=9, max_tokens=9)
    proto = through_bytes(types.sampling_to_proto(value))
    assert types.sampling_from_proto(proto, defaults) == value


@effort(100)
@given(samplings)
def test_what_is_not_set_takes_the_defaults(defaults: SamplingParams):
    found = types.sampling_from_proto(types_pb2.SamplingParams(), defaults)
    assert found == replace(defaults, ignore_eos=False, num_logprobs=None)


@pytest.mark.parametrize(
    ("forward", "back", "values"),
    [
        (types.metadata_to_proto, types.metadata_from_proto, metadata),
        (types.usage_to_proto, types.usage_from_proto, usages),
        (types.token_output_to_proto, types.token_output_from_proto, token_outputs),
        (types.bar_to_proto, types.bar_from_proto, bars),
        (types.timeline_to_proto, types.timeline_from_proto, timelines),
        (types.span_to_proto, types.span_from_proto, st.builds(Span, uint32, uint32)),
        (transport.peer_to_proto, transport.peer_from_proto, peers),
        (transport.descriptor_to_proto, transport.descriptor_from_proto, descriptors),
        (encoder.described_to_proto, encoder.described_from_proto, metadata),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@effort(100)
@given(data=st.data())
def test_converters_are_inverse(data: st.DataObject, forward, back, values):
    value = data.draw(values)
    assert back(through_bytes(forward(value))) == value


@effort(100)
@given(sequence_requests())
def test_sequence_request_is_inverse(request_value: SequenceRequest):
    proto = through_bytes(llm.sequence_request_to_proto(request_value))
    assert llm.sequence_request_from_proto(proto, SamplingParams()) == request_value


@pytest.mark.parametrize("reason", [FinishReason.STOP, FinishReason.LENGTH, FinishReason.CANCELLED])
def test_finish_reason_is_inverse(reason: FinishReason):
    assert types.finish_reason_from_proto(types.finish_reason_to_proto(reason)) is reason


def test_an_error_is_no_last_event_and_unspecified_is_refused():
    with pytest.raises(InternalError):
        types.finish_reason_to_proto(FinishReason.ERROR)
    with pytest.raises(InternalError):
        types.finish_reason_from_proto(types_pb2.FINISH_REASON_UNSPECIFIED)


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_item_errors_keep_their_class_and_sentence(kind):
    error = kind("the picture is broken", field="pictures[2]")
    found = encoder.described_from_proto(through_bytes(encoder.described_to_proto(error)))
    assert type(found) is kind
    assert str(found) == "pictures[2]: the picture is broken"


def test_a_described_picture_without_result_is_an_internal_error():
    assert isinstance(encoder.described_from_proto(encoder_pb2.DescribedPicture()), InternalError)


def test_router_events_carry_their_values():
    started = router.started_event("r", "m", 9, [4, 2]).started
    assert (started.request_id, started.model, started.num_prompt_tokens) == ("r", "m", 9)
    assert list(started.num_item_tokens) == [4, 2]
    tokens = router.tokens_event("hi", [TokenOutput(7, -0.5)]).tokens
    assert tokens.text == "hi"
    assert types.token_output_from_proto(tokens.tokens[0]) == TokenOutput(7, -0.5)
    timeline = Timeline("r", (Bar("l", "encode", 1, 2),), 0.5, 1, 2, 3)
    judged = Judged(0.25, None, 2.0, 0.5, (("quick", Tally(1, 0)), ("images", Tally(2, 1))))
    usage = Usage(9, 8, 7, 6)
    finished = router.finished_event(FinishReason.LENGTH, usage, timeline, judged).finished
    assert types.finish_reason_from_proto(finished.reason) is FinishReason.LENGTH
    assert types.usage_from_proto(finished.usage) == usage
    assert types.timeline_from_proto(finished.timeline) == timeline
    assert judged_from_proto(finished.judged) == judged
    bare = router.finished_event(FinishReason.STOP, Usage(), None, None).finished
    assert not bare.HasField("timeline")
    assert not bare.HasField("judged")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("temperature", [-0.1, math.nan, math.inf, 101.0]),
        ("top_p", [0.0, -1.0, 1.1, math.nan]),
        ("repetition_penalty", [0.0, -1.0, math.inf, 101.0, math.nan]),
        ("presence_penalty", [-2.1, 2.1, math.nan]),
        ("frequency_penalty", [-2.1, 2.1, math.nan]),
        ("max_tokens", [0, -1, -(2**63)]),
        ("num_logprobs", [21, 2**32 - 1]),
        ("stop", [["x"] * 17]),
    ],
)
def test_sampling_out_of_range_is_refused_with_its_field(field: str, values: list[Any]):
    for value in values:
        proto = types_pb2.SamplingParams(**{field: value})
        with pytest.raises(InvalidArgument) as caught:
            types.sampling_from_proto(proto, SamplingParams())
        assert caught.value.field == f"sampling.{field}"


@pytest.mark.parametrize("text", ["", "x" * 257])
def test_a_stop_text_has_a_sensible_length(text: str):
    proto = types_pb2.SamplingParams(stop=["ok", text])
    with pytest.raises(InvalidArgument) as caught:
        types.sampling_from_proto(proto, SamplingParams())
    assert caught.value.field == "sampling.stop[1]"


def item(index: int, *spans: tuple[int, int], **changes) -> llm_pb2.PromptItem:
    fields = {
        "index": index,
        "content_hash": bytes(32),
        "spans": [types_pb2.Span(start=start, length=length) for start, length in spans],
    }
    return llm_pb2.PromptItem(**{**fields, **changes})


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("request_id", {"request_id": ""}),
        ("token_ids", {"token_ids": []}),
        ("items[0].index", {"items": [item(1, (0, 2))]}),
        ("items[1].index", {"items": [item(0, (0, 2)), item(0, (2, 2))]}),
        ("items[0].content_hash", {"items": [item(0, (0, 2), content_hash=b"short")]}),
        ("items[0].spans", {"items": [item(0)]}),
        ("items[0].grid", {"items": [item(0, (0, 2), grid=[1, 2])]}),
        ("items[0].spans[0]", {"items": [item(0, (0, 0))]}),
        ("items[0].spans[0]", {"items": [item(0, (9, 2))]}),
        ("items[0].spans[0]", {"items": [item(0, (2**32 - 1, 2**32 - 1))]}),
        ("items[0].spans[1]", {"items": [item(0, (4, 2), (2, 2))]}),
        ("items[0].spans[1]", {"items": [item(0, (2, 3), (4, 2))]}),
        ("items[1].spans[0]", {"items": [item(0, (2, 3)), item(1, (4, 2))]}),
        ("sampling.top_p", {"sampling": types_pb2.SamplingParams(top_p=7)}),
    ],
)
def test_a_wrong_sequence_is_refused_with_its_field(field: str, changes: dict[str, Any]):
    proto = llm_pb2.LlmServiceGenerateRequest(
        **{"request_id": "r", "token_ids": range(10), **changes}
    )
    with pytest.raises(InvalidArgument) as caught:
        llm.sequence_request_from_proto(proto, SamplingParams())
    assert caught.value.field == field


@effort(100)
@given(peers, st.data())
def test_metadata_that_was_changed_on_the_way_is_refused(peer: PeerInfo, data: st.DataObject):
    proto = transport.peer_to_proto(peer)
    proto.metadata = data.draw(st.binary(max_size=64).filter(lambda other: other != peer.metadata))
    with pytest.raises(CorruptTransfer, match="digest"):
        transport.peer_from_proto(proto)


@effort(100)
@given(st.floats(0, 4e6))
def test_a_lease_never_grows_on_the_wire(ttl_s: float):
    proto = transport.descriptor_to_proto(Descriptor("p", (Segment(0, 1),), 1, ttl_s, None))
    found = transport.descriptor_from_proto(proto).ttl_s
    assert found <= ttl_s + 1e-6
    assert found > ttl_s - 0.0011
