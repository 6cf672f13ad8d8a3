"""Which field of a manifest a setting of a process came from: the way back of `workloads`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pydantic.alias_generators import to_camel

from redserve.spec.problems import field_info
from redserve.spec.service import RedService
from redserve.spec.settings import (
    EncoderSettings,
    LLMSettings,
    ProcessSettings,
    RouterSettings,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve.spec.placement import Role

_SETTINGS: Final[Mapping[str, type[ProcessSettings]]] = {
    "encoder": EncoderSettings,
    "llm": LLMSettings,
    "router": RouterSettings,
}
_SHARED: Final[Mapping[str, str]] = {
    "model_uri": "spec.model.uri",
    "model_revision": "spec.model.revision",
    "max_model_length": "spec.model.maxModelLength",
    "dtype": "spec.model.dtype",
    "max_image_pixels": "spec.router.media.maxImagePixels",
    "lease_ttl_s": "spec.transport.leaseSeconds",
    "transport": "spec.transport.type",
    "slos": "spec.slos",
    "log_level": "spec.monitoring.logLevel",
    "log_format": "spec.monitoring.logFormat",
    "otlp_endpoint": "spec.monitoring.tracing.otlpEndpoint",
    "sampling_percent": "spec.monitoring.tracing.samplingPercent",
}
_RENAMED: Final[Mapping[str, str]] = {
    "batch_rows_idle": "idleBatchRows",
    "pool_bytes": "poolSize",
    "tpot_target_ms": "tpotTargetMilliseconds",
    "kv_cache_bytes": "kvCacheSize",
    "arena_bytes": "arenaSize",
    "drain_timeout_s": "rollout.drainTimeoutSeconds",
    "request_timeout_s": "requestTimeoutSeconds",
    "encoder_grace_s": "encoderGraceSeconds",
    "llm_grace_s": "llmGraceSeconds",
    "num_timelines": "keptTimelines",
    "max_images": "media.maxImages",
    "max_image_bytes": "media.maxImageSize",
    "max_request_bytes": "media.maxRequestSize",
    "url_fetch": "media.urlFetch",
    "url_allowed_hosts": "media.allowedHosts",
    "url_allow_private": "media.privateAddresses",
    "url_timeout_s": "media.fetchTimeoutSeconds",
}


def manifest_field(role: Role, setting: str) -> str | None:
    """The field behind a setting, such as `spec.llm.tokenBudget`; None when there is none.

    Addresses and ports are left out: the command line and free ports have a say in them.

    Args:
        role: Whose setting.
        setting: Its name as errors write it: `token_budget`, `REDSERVE_LLM_TOKEN_BUDGET` or
            `--token-budget`.
    """
    name = setting.removeprefix("--").replace("-", "_").lower()
    name = name.removeprefix(f"redserve_{role}_")
    if name not in _SETTINGS[role].model_fields or name == "service":
        return None
    if name in _SHARED:
        return _SHARED[name]
    field = f"spec.{role}.{_RENAMED.get(name) or to_camel(name)}"
    return field if field_info(RedService, field.split(".")) is not None else None


def blamed_field(role: Role, sentence: str) -> str | None:
    """The field that an error's sentence begins with, or the setting ("token_budget: ...")."""
    field = re.match(r"(spec(?:\.\w+)+): ", sentence)
    if field and field_info(RedService, field[1].split(".")) is not None:
        return field[1]
    setting = re.match(r"([\w-]+): ", sentence)
    return manifest_field(role, setting[1]) if setting else None
