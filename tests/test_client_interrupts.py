"""Whatever a caller is interrupted at, the client works on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import pytest

from geard import Admin, Client
from geard.client.choice import CHOICES, Choose
from geard.client.turn import Turn
from tests.support.servers import Embedded


@pytest.mark.parametrize("choose", CHOICES)
def test_an_interrupt_as_a_turn_is_given_back_leaves_a_client_that_works(
    choose: Choose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may strike as any function begins, those that clean up included."""

    class Interrupt(BaseException):
        pass

    forget = Turn.forget

    def strike(self: Turn, taken: list[bool]) -> None:
        if threading.current_thread() is threading.main_thread():
            raise Interrupt
        forget(self, taken)

    with Embedded() as server, Client(server.address, choose=choose) as client:
        calls: list[Callable[[], object]] = [
            lambda: client.echo(b"connects", timeout=30),
            lambda: client.submit_background("f", "", timeout=30),
            lambda: client.status("H:1", timeout=30),
        ]
        if choose != "first":
            calls.append(lambda: client.set_servers(server.address))
        for call in calls:
            with monkeypatch.context() as struck:
                struck.setattr(Turn, "forget", strike)
                with contextlib.suppress(Interrupt):
                    call()
            for each in calls:
                each()
    with Embedded() as server, Admin(server.address) as admin:
        with monkeypatch.context() as struck:
            struck.setattr(Turn, "forget", strike)
            with pytest.raises(Interrupt):
                admin.version()
        assert admin.version()


def test_what_interrupts_have_left_of_their_turns_goes_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each makes all later calls of its thread longer."""

    class Interrupt(BaseException):
        pass

    def strike() -> int:
        raise Interrupt

    turn = Turn()
    for interrupted in (True, True, False):
        taken: list[bool] = []
        assert turn.take(taken, None)
        taken[0] = False
        turn.lock.release()
        with monkeypatch.context() as struck, contextlib.suppress(Interrupt):
            if interrupted:
                struck.setattr(threading, "get_ident", strike)
            turn.forget(taken)
    assert not turn.takers
