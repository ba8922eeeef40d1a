"""The client library: Client, its Task, and Admin."""

from geard.client.client import Client
from geard.client.requests import Priority, When
from geard.client.state import JobState
from geard.client.task import Complete, Data, Event, Status, Task, Warning  # noqa: A004 - the protocol's own word

__all__ = ["Client", "Complete", "Data", "Event", "JobState", "Priority", "Status", "Task", "Warning", "When"]
