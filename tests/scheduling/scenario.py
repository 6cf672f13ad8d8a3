"""One randomized run of the scheduler, small enough to be written down as an example."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from random import Random

from redserve.domain import Item, SamplingParams, SequenceKey, SequenceRequest, Span
from redserve.scheduling import SchedulerConfig

PLACEHOLDER = 99
VOCABULARY = 5


@dataclass(frozen=True)
class Scenario:
    """Everything that a run depends on; `seed` decides the workload and the interleaving.

    The pool holds the longest request plus `slack` blocks, which is where the bugs are.

    Attributes:
        deliver: `random`: any order, in chunks. `oldest`: only the oldest live request gets rows.
            `youngest`: the youngest first. `arena`: by priority into an arena of `arena` rows more
            than the largest item, evicting what is needed last.
        abort, drop: Chance per step, in percent.
        late: Chance per step, in percent, that no row arrives.
    """

    seed: int = 0
    num_requests: int = 3
    slack: int = 0
    block_size: int = 4
    budget: int = 16
    stages: int = 1
    min_chunk: int = 1
    max_held_back: int = 4
    atomic: bool = False
    prefix_cache: bool = True
    reserve_ratio: float = 0.0
    reserve_prompts: bool = False
    max_sequences: int = 8
    deliver: str = "random"
    arena: int = 0
    abort: int = 0
    drop: int = 0
    late: int = 0

    def config(self, requests: list[SequenceRequest]) -> SchedulerConfig:
        longest = max((len(r.token_ids) + r.sampling.max_tokens - 1 for r in requests), default=1)
        return SchedulerConfig(
            num_blocks=-(-longest // self.block_size) + self.slack,
            block_size=self.block_size,
            max_sequences=self.max_sequences,
            max_in_flight=self.stages,
            min_chunk=self.min_chunk,
            max_held_back=self.max_held_back,
            atomic_items=self.atomic,
            prefix_cache=self.prefix_cache,
            reserve_ratio=self.reserve_ratio,
            reserve_prompts=self.reserve_prompts,
        )

    def requests(self) -> list[SequenceRequest]:
        random = Random(self.seed)
        return [make_request(random, f"r{n}") for n in range(self.num_requests)]


def make_request(random: Random, request_id: str, most_items: int = 3) -> SequenceRequest:
    """Few words and few pictures, so that prefixes are shared often."""
    token_ids: list[int] = []
    items: list[Item] = []

    def text(most: int) -> None:
        # Mostly one word repeated: long common prefixes, then a difference.
        token_ids.extend(
            random.randrange(VOCABULARY) if random.random() < 0.1 else 1
            for _ in range(random.randint(0, most))
        )

    text(12)
    for index in range(random.randint(0, most_items)):
        content = random.randrange(3)
        # The content decides the rows, as it does for pictures.
        lengths = ((9,), (3, 1, 4), (2,))[content]
        spans = []
        for n, length in enumerate(lengths):
            token_ids.extend([2] * (n > 0))
            spans.append(Span(len(token_ids), length))
            token_ids.extend([PLACEHOLDER] * length)
        items.append(Item(index, b"picture %d" % content, sum(lengths), tuple(spans)))
        text(6)
    if not token_ids or random.random() < 0.8:
        token_ids.append(3)
    max_tokens = random.randint(1, 12)
    resumed: tuple[int, ...] = ()
    request = SequenceRequest(
        SequenceKey(request_id),
        tuple(token_ids),
        tuple(items),
        SamplingParams(max_tokens=max_tokens),
    )
    if random.random() < 0.2:
        resumed = alone(request)[: random.randrange(max_tokens)][:-1]
    return SequenceRequest(request.key, request.token_ids, request.items, request.sampling, resumed)


def contents(request: SequenceRequest) -> list[bytes]:
    """What each prompt position holds: a token, or a row of a picture."""
    what = [b"token %d" % token for token in request.token_ids]
    for item in request.items:
        row = 0
        for span in item.spans:
            for position in range(span.start, span.end):
                what[position] = row_content(item, row)
                row += 1
    return what


def row_content(item: Item, row: int) -> bytes:
    return b"row %d of %s" % (row, item.content_hash)


START = b"start"


def next_state(state: bytes, content: bytes) -> bytes:
    """The KV of a position: a function of everything up to it."""
    return blake2b(state + content, digest_size=16).digest()


def sample(state: bytes) -> int:
    return state[0] % VOCABULARY


def is_last(state: bytes) -> bool:
    """Whether the token sampled here ends the output."""
    return state[1] % 16 == 0


def alone(request: SequenceRequest) -> tuple[int, ...]:
    """All outputs of a request that runs by itself, resumed ones included."""
    state = START
    for content in contents(request):
        state = next_state(state, content)
    outputs: list[int] = []
    while len(outputs) < request.sampling.max_tokens:
        outputs.append(sample(state))
        if is_last(state):
            break
        state = next_state(state, b"token %d" % outputs[-1])
    return tuple(outputs)
