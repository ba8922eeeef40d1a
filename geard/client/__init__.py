"""The client library: Client, its Task, and Admin."""

from geard.client.choice import Choose
from geard.client.client import Client
from geard.client.handle import Handle
from geard.client.requests import Priority, When
from geard.client.state import JobState
from geard.client.task import Complete, Data, Event, Status, Task, Warning  # noqa: A004 - the protocol's own word

__all__ = [
    "Choose",
    "Client",
    "Complete",
    "Data",
    "Event",
    "Handle",
    "JobState",
    "Priority",
    "Status",
    "Task",
    "Warning",
    "When",
]
