"""Random histories of peers and jobs: the rules against a model of them that is slow and plain.

The model keeps all jobs in one list and looks through it each time. After every step each peer must have been sent
exactly the packets that the model says, and the counts, indexes and the queue file must hold what the model holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from geard.jobserver.requests import HANDLERS
from geard.jobserver.rules import Rules
from geard.jobserver.state import Peer, State
from geard.protocol import RESPONSE, Command, Decoder

PEERS = 4
RETRIES = 3
FUNCTIONS = [b"f", b"g"]
SUBMISSIONS = {
    Command.SUBMIT_JOB: (1, False),
    Command.SUBMIT_JOB_HIGH: (0, False),
    Command.SUBMIT_JOB_LOW: (2, False),
    Command.SUBMIT_JOB_BG: (1, True),
    Command.SUBMIT_JOB_HIGH_BG: (0, True),
    Command.SUBMIT_JOB_LOW_BG: (2, True),
}

Sent = tuple[Command, list[bytes]]
peers = st.integers(0, PEERS - 1)
functions = st.sampled_from(FUNCTIONS)
uniques = st.sampled_from([b"", b"a", b"b", b"-"])


@dataclass
class ModelJob:
    number: int
    function: bytes
    unique: bytes
    workload: bytes
    priority: int
    background: bool
    due: int
    clients: list[int] = field(default_factory=list)
    worker: int | None = None
    deadline: float = 0  # 0: none
    late: int | None = None  # the worker that ran over it, while no other has the job
    retries: int = 0
    assigned: int = 0  # in the order of being assigned
    place: int = 0  # in the order of being queued; 0: its time has not come
    cancelled: bool = False  # but its worker does not know

    @property
    def handle(self) -> bytes:
        return b"H:x:%d" % self.number


class Model:
    """What should happen."""

    def __init__(self) -> None:
        self.jobs: list[ModelJob] = []
        self.abilities: list[dict[bytes, int]] = [{} for _ in range(PEERS)]  # with the timeout
        self.assigned: list[list[ModelJob]] = [[] for _ in range(PEERS)]
        self.asleep = [False] * PEERS
        self.sent: list[list[Sent]] = [[] for _ in range(PEERS)]
        self.places = 0
        self.numbers = 0

    def tell(self, peer: int, command: Command, *fields: bytes) -> None:
        self.sent[peer].append((command, list(fields)))

    def find(self, function: bytes, unique: bytes, workload: bytes) -> ModelJob | None:
        for job in self.jobs:
            same = job.workload == workload if unique == b"-" else bool(unique)
            if same and job.function == function and job.unique == unique:
                return job
        return None

    def queue(self, job: ModelJob) -> None:
        self.places += 1
        job.place = self.places
        job.worker = None
        job.deadline = 0
        for peer in range(PEERS):
            if self.asleep[peer] and job.function in self.abilities[peer]:
                self.asleep[peer] = False
                self.tell(peer, Command.NOOP)

    def next_for(self, peer: int) -> list[ModelJob]:
        """The jobs that may be next: of the highest priority, the oldest of each function."""
        mine = [job for job in self.jobs if job.function in self.abilities[peer]]
        waiting = [job for job in mine if job.place and job.worker is None]
        best = min((job.priority for job in waiting), default=0)
        oldest: dict[bytes, ModelJob] = {}
        for job in sorted(waiting, key=lambda job: job.place):
            if job.priority == best:
                oldest.setdefault(job.function, job)
        return list(oldest.values())

    def hand_back(self, job: ModelJob) -> None:
        if job.cancelled:
            return
        job.retries += 1
        if job.retries == RETRIES:
            for client in job.clients:
                self.tell(client, Command.WORK_FAIL, job.handle)
            self.jobs.remove(job)
        elif not job.background and not job.clients:
            self.jobs.remove(job)
        else:
            self.queue(job)

    def give_up(self, peer: int, functions: list[bytes]) -> None:
        """Its jobs first: gearmand wakes a worker that sleeps for the job that it gives up."""
        back = [job for job in self.assigned[peer] if job.function in functions]
        self.assigned[peer] = [job for job in self.assigned[peer] if job not in back]
        for job in back:
            self.hand_back(job)
        self.abilities[peer] = {name: time for name, time in self.abilities[peer].items() if name not in functions}


class Histories(RuleBasedStateMachine):
    @initialize(durable=st.booleans())
    def begin(self, durable: bool) -> None:
        self.server = Rules(b"H:x:", job_retries=RETRIES, durable=durable)
        self.peers = [Peer() for _ in range(PEERS)]
        self.model = Model()
        self.now = 1000
        self.stored: set[int] = set()

    def request(self, peer: int, command: Command, *fields: bytes) -> None:
        HANDLERS[command](self.server, self.peers[peer], list(fields), self.now)

    @rule(
        peer=peers, function=functions, unique=uniques, command=st.sampled_from(sorted(SUBMISSIONS)), fits=st.booleans()
    )
    def submit(self, peer: int, function: bytes, unique: bytes, command: Command, fits: bool) -> None:
        priority, background = SUBMISSIONS[command]
        self.add(peer, function, unique, priority, background, 0, fits)
        self.request(peer, command, function, unique, b"w")
        self.end_turn(fits)

    @rule(peer=peers, function=functions, unique=uniques, delay=st.integers(-1, 3), fits=st.booleans())
    def submit_later(self, peer: int, function: bytes, unique: bytes, delay: int, fits: bool) -> None:
        due = self.now + delay
        self.add(peer, function, unique, 1, True, due if delay > 0 else 0, fits)
        self.request(peer, Command.SUBMIT_JOB_EPOCH, function, unique, b"%d" % due, b"w")
        self.end_turn(fits)

    def add(
        self, peer: int, function: bytes, unique: bytes, priority: int, background: bool, due: int, fits: bool
    ) -> None:
        model = self.model
        refused = self.server.durable and background and not fits
        job = model.find(function, unique, b"w")
        if job is None:
            model.numbers += 1
            job = ModelJob(model.numbers, function, unique, b"w", priority, background, due)
            if not refused:
                model.jobs.append(job)
                if not due:
                    model.queue(job)
        elif job.background:
            refused = False
        elif not refused:
            job.background = job.background or background
        if not background:
            job.clients.append(peer)
        if refused:
            model.tell(peer, Command.ERROR, b"QUEUE_ERROR", b"full")
        else:
            model.tell(peer, Command.JOB_CREATED, job.handle)

    def end_turn(self, fits: bool) -> None:
        """As the server does it: JOB_CREATED before NOOP does not matter, they go to peers at the same time."""
        staged = self.server.to_store()
        if fits:
            self.stored |= {job.number for job in staged}
            self.server.admit()
        else:
            self.server.refuse("full")

    @rule(peer=peers, function=functions, seconds=st.sampled_from([0, 2]))
    def can_do(self, peer: int, function: bytes, seconds: int) -> None:
        if function in self.model.abilities[peer]:
            return
        self.model.abilities[peer][function] = seconds
        if self.model.asleep[peer] and self.model.next_for(peer):
            self.model.asleep[peer] = False
            self.model.tell(peer, Command.NOOP)
        if seconds:
            self.request(peer, Command.CAN_DO_TIMEOUT, function, b"%d" % (seconds * 1000))
        else:
            self.request(peer, Command.CAN_DO, function)

    @rule(peer=peers, function=functions)
    def cant_do(self, peer: int, function: bytes) -> None:
        self.model.give_up(peer, [function])
        self.request(peer, Command.CANT_DO, function)

    @rule(peer=peers)
    def sleep(self, peer: int) -> None:
        if self.model.next_for(peer):
            self.model.asleep[peer] = False
            self.model.tell(peer, Command.NOOP)
        else:
            self.model.asleep[peer] = True
            for job in self.model.assigned[peer]:
                job.deadline = 0
        self.request(peer, Command.PRE_SLEEP)

    @rule(peer=peers)
    def grab(self, peer: int) -> None:
        self.model.asleep[peer] = False
        could = self.model.next_for(peer)
        self.request(peer, Command.GRAB_JOB_UNIQ)
        if not could:
            self.model.tell(peer, Command.NO_JOB)
            return
        packet = self.peers[peer].outbox[-1]
        [job] = [job for job in could if b"\0RES\0\0\0\x1f" in packet and job.handle + b"\0" in packet]
        job.worker, job.late = peer, None
        timeout = self.model.abilities[peer][job.function]
        job.deadline = self.now + timeout if timeout else 0
        self.model.places += 1
        job.assigned = self.model.places
        self.model.assigned[peer].append(job)
        self.model.tell(peer, Command.JOB_ASSIGN_UNIQ, job.handle, job.function, job.unique, job.workload)

    @rule(
        peer=peers,
        data=st.data(),
        command=st.sampled_from([Command.WORK_COMPLETE, Command.WORK_FAIL, Command.WORK_DATA, Command.WORK_EXCEPTION]),
    )
    def report(self, peer: int, data: st.DataObject, command: Command) -> None:
        late = [job for job in self.model.jobs if job.late is not None]
        everything: list[ModelJob | None] = [*(job for jobs in self.model.assigned for job in jobs), *late]
        everything = everything or [None]
        job = data.draw(st.sampled_from(everything))
        handle = job.handle if job else b"H:x:999"
        fields = [handle] if command == Command.WORK_FAIL else [handle, b"d"]
        if job is None or (job not in self.model.assigned[peer] and job.late != peer):
            self.model.sent[peer].append((Command.ERROR, [b"JOB_NOT_FOUND"]))
        else:
            told = command if command != Command.WORK_EXCEPTION else Command.WORK_FAIL
            for client in [] if job.cancelled else job.clients:
                self.model.tell(client, told, *(fields if told == command else [handle]))
            if command != Command.WORK_DATA:
                if job in self.model.assigned[peer]:
                    self.model.assigned[peer].remove(job)
                if not job.cancelled:
                    self.model.jobs.remove(job)
        self.request(peer, command, *fields)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if not self.model.jobs:
            return
        job = data.draw(st.sampled_from(self.model.jobs))
        for client in job.clients:
            self.model.tell(client, Command.WORK_FAIL, job.handle)
        self.model.jobs.remove(job)
        job.cancelled, job.late, job.deadline = True, None, 0  # its worker may take as long as it wants
        assert self.server.cancel(job.handle)
        assert not self.server.cancel(job.handle)

    @rule(peer=peers)
    def drop(self, peer: int) -> None:
        model = self.model
        model.asleep[peer] = False
        model.give_up(peer, FUNCTIONS)
        for job in list(model.jobs):
            if peer in job.clients:
                job.clients = [client for client in job.clients if client != peer]
                if not job.clients and not job.background and job.worker is None:
                    model.jobs.remove(job)
        for job in model.jobs:
            if job.late == peer:
                job.late = None
        model.sent[peer].clear()
        for _ in self.server.depart(self.peers[peer]):
            pass
        assert not self.peers[peer].outbox
        self.peers[peer] = Peer()

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        late = [job for job in self.model.jobs if not job.place and job.due <= self.now]
        for job in sorted(late, key=lambda job: (job.due, job.number)):
            self.model.queue(job)
        over = [job for jobs in self.model.assigned for job in jobs if 0 < job.deadline <= self.now]
        for job in sorted(over, key=lambda job: job.assigned):
            worker = job.worker
            assert worker is not None
            self.model.assigned[worker].remove(job)
            self.model.hand_back(job)
            job.late = worker if job in self.model.jobs else None
        assert not self.server.tick(self.now)

    @invariant()
    def everybody_heard_what_the_model_says(self) -> None:
        for number, peer in enumerate(self.peers):
            decoder = Decoder(RESPONSE)
            decoder.feed(b"".join(peer.outbox))
            peer.outbox.clear()
            heard: list[Sent] = []
            for command, fields in decoder:
                missing = command == Command.ERROR and fields[0] == b"JOB_NOT_FOUND"
                heard.append((command, fields[:1] if missing else fields))
            by_name = sorted(heard, key=repr), sorted(self.model.sent[number], key=repr)
            assert by_name[0] == by_name[1]  # one step: the order within it is that of hash or of turn
            self.model.sent[number].clear()
        self.server.unsent.clear()

    @invariant()
    def nothing_is_left_over(self) -> None:
        server, model = self.server, self.model
        self.stored -= set(server.ended)
        server.ended.clear()
        assert set(server.jobs) == {job.handle for job in model.jobs}
        if server.durable:
            assert self.stored == {job.number for job in model.jobs if job.background}
        assert set(server.functions) == {job.function for job in model.jobs}.union(*model.abilities)
        for name, function in server.functions.items():
            mine = [job for job in model.jobs if job.function == name]
            running = [job for job in mine if job.worker is not None]
            waiting = [job for job in mine if job.place and job.worker is None]
            assert (function.total, function.running) == (len(mine), len(running))
            for priority, queue in enumerate(function.queues):
                assert function.queued(priority) == sum(job.priority == priority for job in waiting)
                assert sum(job.state is State.GONE for job in queue) == function.gone[priority]
                assert not queue or queue[0].state is State.QUEUED
                held = [job for job in mine if job.worker is None and not job.place]
                assert function.held[priority] == sum(job.priority == priority for job in held)
            assert len(function.by_unique) == len({job.unique for job in mine if job.unique not in (b"", b"-")})
            assert function.workers == sum(name in abilities for abilities in model.abilities)
        for number, peer in enumerate(self.peers):
            assert peer.sleeping == model.asleep[number]
            assert list(peer.assigned) == [job.handle for job in model.assigned[number]]
            assert set(peer.late or ()) == {job.handle for job in model.jobs if job.late == number}
            assert {job.handle for job in peer.waits_for} == {j.handle for j in model.jobs if number in j.clients}
            assert all(job.state is not State.GONE for job in peer.waits_for)
        assert set(server.uniques) == {job.unique for job in model.jobs} - {b"", b"-"}
        assert all(job.unique == unique for unique, job in server.uniques.items())
        assert all(server.jobs[job.handle] is job for job in server.uniques.values())
        for handle, job in server.jobs.items():
            assert job.retries == next(each.retries for each in model.jobs if each.handle == handle)


Histories.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestHistories = Histories.TestCase
