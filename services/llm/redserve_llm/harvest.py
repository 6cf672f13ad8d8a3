"""What a step brought in: tokens become text, ends are recognised."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from redserve.errors import InternalError
from redserve.scheduling import Outcome
from redserve.telemetry.log import get_logger
from redserve_llm.notices import Begun, Delta, Worked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve.domain import SequenceKey
    from redserve.errors import RedServeError
    from redserve.scheduling import MicroBatch
    from redserve_llm.ledger import Ledger
    from redserve_llm.runner.interface import SampledToken

log = get_logger()


@dataclass(frozen=True, slots=True)
class Harvest:
    """Results of one step.

    Attributes:
        deltas: What clients get.
        begun: Sequences whose first chunk this was.
        worked: What those who watch get.
        outcomes: What the scheduler gets.
        failures: Sequences whose token could not be taken.
    """

    deltas: list[Delta] = field(default_factory=list)
    begun: list[Begun] = field(default_factory=list)
    worked: list[Worked] = field(default_factory=list)
    outcomes: dict[SequenceKey, Outcome] = field(default_factory=dict)
    failures: dict[SequenceKey, RedServeError] = field(default_factory=dict)


def bug() -> InternalError:
    """What a client hears of a bug: nothing of the inside."""
    return InternalError("the engine failed on this request; its log has the details")


def gather(
    ledger: Ledger,
    batch: MicroBatch,
    sampled: Mapping[SequenceKey, SampledToken],
    start_ns: int,
    end_ns: int,
) -> Harvest:
    """Hand every sampled token to its sequence. Called by the engine's thread, without its lock.

    A sequence that fails here does not harm its neighbours.
    """
    harvest = Harvest()
    for chunk in batch.chunks:
        live = ledger.live(chunk.key)
        if live is None:
            continue  # aborted while the step ran
        if live.timeline.first_chunk_ns is None:
            harvest.begun.append(Begun(chunk.key, start_ns))
        bars = live.timeline.chunk(chunk, start_ns, end_ns)
        if live.watched and bars:
            harvest.worked.append(Worked(chunk.key, bars))
        if not chunk.samples:
            continue
        try:
            text, output = live.accept(sampled[chunk.key])
        except Exception:
            log.exception("a token could not be taken", sequence_id=chunk.key.request_id)
            harvest.failures[chunk.key] = bug()
        else:
            harvest.deltas.append(Delta(chunk.key, text, (output,)))
            harvest.outcomes[chunk.key] = Outcome(output.token_id, live.reason is not None)
    return harvest
