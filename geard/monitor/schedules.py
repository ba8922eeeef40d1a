"""The schedules of this machine's daemon, as its supervisor last told them."""

from __future__ import annotations

from typing import Final

from geard.errors import GeardError
from geard.monitor.daemons import ControlSocket
from geard.scheduler.states import ScheduleState
from geard.supervisor import answers
from geard.supervisor.answers import Request

POLL_SECONDS: Final = 2.0


class SchedulesWatch:
    """See the module. `error`: why nothing of it is new."""

    def __init__(self, control: ControlSocket) -> None:
        self.states: tuple[ScheduleState, ...] = ()
        self.error = ""
        self._control = control

    def poll(self) -> float:
        """Ask. How long to wait before the next time."""
        try:
            self.states, self.error = self._control.ask(Request(answers.SCHEDULES)).schedules or (), ""
        except GeardError as error:
            self.error = str(error)
        return POLL_SECONDS
