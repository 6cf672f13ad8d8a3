"""What one request brought."""

from __future__ import annotations

from dataclasses import dataclass

from redserve.slo import End, Ended


@dataclass(frozen=True, slots=True)
class Problem:
    """Why there is no whole answer.

    Attributes:
        end: As promises see it; None if they do not: the client never asked, for it could not.
        reason: A word for tables, for example "OVERLOADED", "HTTP_503" or "CLIENT_FULL".
        message: A sentence.
    """

    end: End | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client saw of one request; times are those of any one clock, seconds.

    Attributes:
        start_s: When it was handed to the connection, or would have been.
        end_s: When the answer was whole, or failed.
        first_token_s, last_token_s: When text came; None if none did.
        num_tokens: Output tokens that the service counted; else pieces of text.
        num_first: Those of them that came at `first_token_s`; all if the answer came in one piece.
        counted: Whether the service counted them.
        problem: None if the answer is whole.
    """

    start_s: float
    end_s: float
    first_token_s: float | None = None
    last_token_s: float | None = None
    num_tokens: int = 0
    num_first: int = 1
    counted: bool = True
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request of a run.

    Attributes:
        index: Its number; numbers rise in the order of sending.
        num_images: Pictures that it had.
        due_s: When it should have been sent, on the answer's clock; in a closed loop, when the one
            before it had ended.
        timeout_s: Deadline that the client set.
    """

    index: int
    num_images: int
    due_s: float
    timeout_s: float
    answer: Answer

    @property
    def is_complete(self) -> bool:
        """Whether the whole answer came."""
        return self.answer.problem is None

    @property
    def was_sent(self) -> bool:
        """Whether the service was asked; if not, the client was at its limits."""
        return self.answer.problem is None or self.answer.problem.end is not None

    @property
    def lag_s(self) -> float:
        """How late the client was, seconds."""
        return max(0.0, self.answer.start_s - self.due_s)

    @property
    def ttft_s(self) -> float | None:
        """Time to first token, seconds."""
        first_s = self.answer.first_token_s
        return None if first_s is None else first_s - self.answer.start_s

    @property
    def tpot_s(self) -> float | None:
        """Mean time of the tokens after the first piece, seconds; None without one."""
        return self.ended().time_per_output_token_s if self.was_sent else None

    @property
    def ttft_from_due_s(self) -> float | None:
        """Time to first token as somebody would see it who asks when it is due, seconds."""
        first_s = self.answer.first_token_s
        return None if first_s is None else first_s - min(self.due_s, self.answer.start_s)

    @property
    def duration_from_due_s(self) -> float:
        """From when it was due until the end, seconds."""
        return self.answer.end_s - min(self.due_s, self.answer.start_s)

    @property
    def is_in_one_piece(self) -> bool:
        """Whether several tokens came, all at once: they have no pace."""
        return self.answer.num_tokens > 1 and self.answer.num_first >= self.answer.num_tokens

    @property
    def duration_s(self) -> float:
        """Until the end, seconds."""
        return self.answer.end_s - self.answer.start_s

    def ended(self) -> Ended:
        """For judging, of a request that was sent.

        What a client cannot see (images at encoders) is not there.

        Raises:
            ValueError: It was not sent.
        """
        answer = self.answer
        end = End.COMPLETE if answer.problem is None else answer.problem.end
        if end is None:
            raise ValueError("a request that was not sent has no end")
        last_s = answer.last_token_s
        # The first piece stands for one token: those that came with it took no time of their own.
        num_with_first = max(0, min(answer.num_first, answer.num_tokens) - 1)
        return Ended(
            end=end,
            duration_s=self.duration_s,
            deadline_s=self.timeout_s,
            first_token_s=self.ttft_s,
            last_token_s=None if last_s is None else last_s - answer.start_s,
            num_tokens=answer.num_tokens - num_with_first,
        )
