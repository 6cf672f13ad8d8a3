from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from redserve.spec import setting_fields
from redserve.spec.problems import field_info, field_path, field_steps
from redserve.spec.service import RedService
from redserve.spec.setting_fields import blamed_field, manifest_field
from redserve.spec.settings import EncoderSettings, LLMSettings, ProcessSettings, RouterSettings

if TYPE_CHECKING:
    from redserve.spec.placement import Role

SETTINGS: dict[Role, type[ProcessSettings]] = {
    "encoder": EncoderSettings,
    "llm": LLMSettings,
    "router": RouterSettings,
}
WITHOUT = {
    "name", "service", "model_cache_dir", "grpc_host", "grpc_port", "advertise_address",
    "metrics_port", "num_threads", "model_name", "http_host", "http_port", "http_enabled",
    "encoder_addresses", "llm_addresses", "encoder_service", "llm_service", "service_namespace",
    "encoders_required", "service_account_dir", "max_connection_age_s", "quarantine_percent",
}  # fmt: skip
"""Settings that the supervisor or cluster chooses, or that the command line may have changed."""


@pytest.mark.parametrize("role", ["encoder", "llm", "router"])
def test_every_setting_has_its_field_or_is_known_to_have_none(role: Role) -> None:
    for setting in SETTINGS[role].model_fields:
        field = manifest_field(role, setting)
        assert (field is None) == (setting in WITHOUT), setting
        if field is not None:
            assert field_info(RedService, field_steps(field)) is not None, field


def test_no_name_is_kept_for_a_setting_that_is_gone() -> None:
    known = {name for settings in SETTINGS.values() for name in settings.model_fields}
    assert {*setting_fields._SHARED, *setting_fields._RENAMED} <= known


@pytest.mark.parametrize("name", ["token_budget", "REDSERVE_LLM_TOKEN_BUDGET", "--token-budget"])
def test_however_an_error_writes_it(name: str) -> None:
    assert blamed_field("llm", f"{name}: too few") == "spec.llm.tokenBudget"


def test_a_sentence_that_begins_with_a_field() -> None:
    said = "spec.transport.type: RDMA is not to be had: no device"
    assert blamed_field("encoder", said) == "spec.transport.type"
    assert blamed_field("encoder", "spec.transport.speed: too slow") is None


def test_a_sentence_that_blames_nothing() -> None:
    assert blamed_field("llm", "the disk is full: sorry") is None
    assert blamed_field("llm", "luck: none") is None
    assert blamed_field("llm", "image: cannot be decoded") is None


def test_fields_become_steps_and_back() -> None:
    for field in ("spec.llm.env[1].valueFrom", "metadata.name", "spec.slos[0].name"):
        assert field_path(field_steps(field)) == field
