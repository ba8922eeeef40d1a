"""Whether a job that failed runs again: a pure decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec import Struct

from geard.config import Capability
from geard.config.model import Retry as RetryConfig
from geard.errors import CapabilityError, GeardError, ProcessKilled
from geard.verdicts import Fail, Reject, Retry
from geard.worker.importing import import_path
from geard.worker.words import is_a

Exceptions = tuple[type[BaseException], ...]


@dataclass(frozen=True)
class Again:
    """It runs again after so long."""

    wait_seconds: float


@dataclass(frozen=True)
class Over:
    """It has failed for good, and goes to the dead letters or does not."""

    dead_letter: bool


@dataclass(frozen=True)
class Policy:
    """A capability's `retry` and `dead_letter`, with the exceptions that they name."""

    retry: RetryConfig | None
    on: Exceptions
    not_on: Exceptions
    dead_letter: bool

    @property
    def most_attempts(self) -> int:
        """The first one included."""
        return 1 + (self.retry.times if self.retry else 0)


def policy_of(spec: Capability) -> Policy | None:
    """The policy of a capability; None where a job that failed has just failed. Raises CapabilityError for an exception
    that cannot be found."""
    if spec.retry is None and not spec.dead_letter:
        return None
    on, not_on = (spec.retry.on, spec.retry.not_on) if spec.retry else ((), ())
    return Policy(spec.retry, _exceptions(on), _exceptions(not_on), spec.dead_letter)


class Judgement(Struct, frozen=True):
    """What an error says of a job, whichever attempt it ended."""

    again: bool
    dead_letter: bool  # when there is no further attempt
    after_seconds: float | None = None  # None: as the policy says


class FailedElsewhere(GeardError):
    """A function raised in another process: the text of its error, its traceback as the cause, and its judgement."""

    def __init__(self, text: str, traceback: str, judgement: Judgement) -> None:
        super().__init__(text)
        self.judgement = judgement
        self.__cause__ = _Traceback(traceback)


class _Traceback(Exception):
    """The text of a traceback, where only text could come over."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def judge(policy: Policy, error: BaseException) -> Judgement:
    """What this error says of a job under this policy."""
    if is_a(error, FailedElsewhere):
        return error.judgement
    if is_a(error, Fail):
        return Judgement(again=False, dead_letter=False)
    if is_a(error, Reject):
        return Judgement(again=False, dead_letter=True)
    if is_a(error, Retry):
        return Judgement(True, policy.dead_letter, error.after_seconds)
    excluded = is_a(error, (*policy.not_on, ProcessKilled)) or (policy.on and not is_a(error, policy.on))
    return Judgement(not excluded, policy.dead_letter)


def decide(policy: Policy, attempt: int, error: BaseException, random: Callable[[], float]) -> Again | Over:
    """What becomes of a job whose `attempt`-th attempt (from 1) ended with `error`. `random` gives 0 to 1."""
    judgement = judge(policy, error)
    if not judgement.again or policy.retry is None or attempt > policy.retry.times:
        return Over(judgement.dead_letter)
    if judgement.after_seconds is not None:
        return Again(judgement.after_seconds)
    least, most = policy.retry.wait
    bound = min(least * 2.0 ** min(attempt, 64), most)  # a float's exponent has no room for more
    return Again(least + (max(bound, least) - least) * random())


def _exceptions(names: tuple[str, ...]) -> Exceptions:
    return tuple(_exception(name) for name in names)


def _exception(name: str) -> type[BaseException]:
    try:
        found = import_path(name if "." in name else f"builtins.{name}")
    except CapabilityError as error:
        raise CapabilityError(f"there is no exception {name}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise CapabilityError(f"{name} is no exception")
    return found
