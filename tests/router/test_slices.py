"""EndpointSlices to members: conditions, ports, families, and a store that a watch keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.routing import Member, merge_members, preferred
from redserve_router.discovery.slices import SliceStore, members_of, slice_from_object
from tests.router.fake_api_server import endpoint, slice_object

if TYPE_CHECKING:
    from redserve_router.discovery.slices import Object


def members(*objects: Object) -> tuple[Member, ...]:
    return members_of([slice_from_object(told) for told in objects], "llm")


@pytest.mark.parametrize(
    ("conditions", "takes_work"),
    [
        ({"ready": True, "serving": True, "terminating": False}, True),
        ({"ready": False, "serving": False, "terminating": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, False),
        ({"ready": False, "serving": False, "terminating": True}, False),
        # publishNotReadyAddresses: everybody is called ready.
        ({"ready": True, "serving": False, "terminating": False}, False),
        ({"ready": True, "serving": True, "terminating": True}, False),
        # Old controllers know `ready` only; unknown is ready.
        ({"ready": False}, False),
        ({"ready": True}, True),
        ({"ready": None, "serving": None, "terminating": None}, True),
        ({}, True),
    ],
)
def test_conditions(conditions, takes_work):
    told = slice_object("a", "llm", endpoint("10.0.0.1", **conditions))
    assert members(told) == (Member("10.0.0.1:50051", takes_work),)


def test_conditions_may_be_absent_and_lists_null():
    told = slice_object("a", "llm", {"addresses": ["10.0.0.1"]})
    assert members(told) == (Member("10.0.0.1:50051"),)
    assert members(slice_object("a", "llm", endpoints=None)) == ()
    assert members(slice_object("a", "llm", endpoint("10.0.0.1"), ports=None)) == ()
    assert members(slice_object("a", "llm", {"addresses": None})) == ()


def test_port_by_name():
    told = slice_object("a", "llm", endpoint("10.0.0.1"), port=7)
    assert members(told) == (Member("10.0.0.1:7"),)
    nameless = slice_object("a", "llm", endpoint("10.0.0.1"), ports=[{"port": 7}])
    assert members(nameless) == ()
    portless = slice_object("a", "llm", endpoint("10.0.0.1"), ports=[{"name": "grpc"}])
    assert members(portless) == ()


def test_only_the_first_address_of_an_endpoint_is_used():
    told = slice_object("a", "llm", {"addresses": ["10.0.0.1", "10.0.0.2"]})
    assert members(told) == (Member("10.0.0.1:50051"),)


def test_slices_of_one_service_are_merged_and_others_left_out():
    assert members(
        slice_object("b", "llm", endpoint("10.0.0.2"), port=7),
        slice_object("a", "llm", endpoint("10.0.0.1")),
        slice_object("c", "encoder", endpoint("10.0.0.3")),
    ) == (Member("10.0.0.1:50051"), Member("10.0.0.2:7"))


def test_an_endpoint_that_moves_between_slices_takes_work_if_any_says_so():
    told = (
        slice_object("a", "llm", endpoint("10.0.0.1", terminating=True)),
        slice_object("b", "llm", endpoint("10.0.0.1")),
    )
    assert members(*told) == members(*reversed(told)) == (Member("10.0.0.1:50051"),)


def test_ipv6_and_both_families():
    six = slice_object("a", "llm", endpoint("fd00::1"), addressType="IPv6")
    assert members(six) == (Member("[fd00::1]:50051"),)
    four = slice_object("b", "llm", endpoint("10.0.0.1"))
    assert members(six, four) == (Member("10.0.0.1:50051"),)
    assert members(slice_object("a", "llm", endpoint("pod.local"), addressType="FQDN")) == ()


def test_merge_keeps_the_order():
    given_order = [Member("b:1"), Member("a:1", takes_work=False), Member("b:1", takes_work=False)]
    assert merge_members(given_order) == (Member("b:1"), Member("a:1", takes_work=False))


def test_preferred_is_advice_until_it_would_leave_nobody():
    assert preferred("abC", str.islower) == ("a", "b")
    assert preferred("BC", str.islower) == ("B", "C")
    assert preferred("", str.islower) == ()


NAMES = st.sampled_from(["s1", "s2", "s3"])
SERVICES = st.sampled_from(["llm", "encoder"])
ENDPOINTS = st.lists(
    st.builds(
        endpoint,
        st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        serving=st.sampled_from([True, False, None]),
        terminating=st.sampled_from([True, False, None]),
    ),
    max_size=3,
)
OBJECTS = st.builds(
    lambda name, service, ends: slice_object(name, service, *ends), NAMES, SERVICES, ENDPOINTS
)
EVENTS = st.lists(st.tuples(st.sampled_from(["put", "remove"]), OBJECTS), max_size=20)


@given(first=st.lists(OBJECTS, max_size=3), events=EVENTS)
def test_a_store_after_events_equals_a_store_that_listed_at_the_end(first, events):
    watched, truth = SliceStore(), {told["metadata"]["name"]: told for told in first}
    watched.replace(truth.values())
    for kind, told in events:
        if kind == "put":
            truth[told["metadata"]["name"]] = told
            watched.put(told)
        else:
            truth.pop(told["metadata"]["name"], None)
            watched.remove(told)
    listed = SliceStore()
    listed.replace(truth.values())
    for service in ("llm", "encoder"):
        assert watched.members(service) == listed.members(service)
        addresses = [member.address for member in watched.members(service)]
        assert addresses == sorted(set(addresses))
