"""What is counted: histograms, totals that never fall, bounded failures and history."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from itertools import pairwise

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from geard.stats.counters import FunctionCounter, NewFailures
from geard.stats.diff import Diff, FunctionDiff, ProcessDiff, ServerDiff
from geard.stats.failures import MAX_TRACEBACK_BYTES, MAX_WORKLOAD_BYTES, Failure, Failures, cut, cut_middle
from geard.stats.histogram import BUCKETS, LAST, Histogram, bounds_us, bucket_of, count_values, middle_us
from geard.stats.history import ALL, History, Recorder, added
from geard.stats.snapshot import FunctionStats
from geard.stats.totals import CRASHED, DRAINED, Totals

microseconds = st.integers(min_value=0, max_value=2**36 - 1)
counts = st.dictionaries(st.integers(0, LAST), st.integers(1, 1000), max_size=5)
function_diffs = st.builds(
    FunctionDiff,
    done=st.integers(0, 100),
    failed=st.integers(0, 100),
    timed_out=st.integers(0, 100),
    durations=counts,
    duration_us=st.integers(0, 10**9),
    running=st.integers(0, 50),
)
names = st.sampled_from(["one", "two", "three"])
diffs = st.builds(Diff, functions=st.dictionaries(names, function_diffs))


def failure(text: str = "no", function: str = "f", **fields: object) -> Failure:
    known = {"handle": "H:1", "unique": "u", "server": "s", "time": 1.0, "type": "ValueError"}
    return msgspec.convert(known | {"function": function, "text": text} | fields, Failure)


# --- histograms ---------------------------------------------------------------------------------------------------


@given(microseconds)
def test_a_bucket_holds_its_values_and_is_off_by_an_eighth_at_most(us: int) -> None:
    low, high = bounds_us(bucket_of(us))
    assert low <= us < high or bucket_of(us) == LAST
    assert bucket_of(us) == LAST or abs(middle_us(bucket_of(us)) - us) <= us / 8


@given(st.integers(), st.integers())
def test_buckets_are_in_the_order_of_their_values(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert 0 <= bucket_of(low) <= bucket_of(high) < BUCKETS


@given(st.lists(st.floats(-1.0, 2.0**40) | microseconds.map(float), max_size=50))
def test_values_are_counted_in_the_buckets_they_belong_to(values: list[float]) -> None:
    counted: dict[int, int] = {}
    assert count_values(counted, values) == int(sum(values))
    assert counted == Counter(bucket_of(int(value)) for value in values)


def test_a_counter_folded_on_the_way_has_the_same_sums() -> None:
    once, often = FunctionCounter(), FunctionCounter()
    for number in range(100):
        for counter in (once, often):
            counter.durations.append(float(number * number))
            counter.waits.append(float(number))
            counter.failed += number % 10 == 0
        often.fold()
        assert not often.durations
    diff = once.take(0)
    assert diff == often.take(0)
    assert diff
    assert (diff.done, diff.failed, diff.ended) == (90, 10, 100)


def test_buckets_leave_no_gap() -> None:
    ends = [bounds_us(bucket) for bucket in range(BUCKETS)]
    assert all(first[1] == second[0] for first, second in pairwise(ends))


@given(st.lists(microseconds, min_size=1))
def test_quantiles_are_near_those_of_the_values(values: list[int]) -> None:
    histogram = histogram_of(values)
    for share in (0.5, 0.95):
        exact = sorted(values)[max(-(-len(values) * share // 1).__int__() - 1, 0)]
        assert abs(histogram.quantile_seconds(share) * 1e6 - exact) <= exact / 8 + 1


@given(st.lists(microseconds))
def test_prometheus_buckets_count_exactly_what_is_below_their_bounds(values: list[int]) -> None:
    for bound, count in histogram_of(values).prometheus_buckets():
        assert count == sum(us < bound * 1e6 for us in values)


def test_an_empty_histogram_has_zero_quantiles() -> None:
    assert Histogram({}, 0).quantile_seconds(0.95) == 0


def histogram_of(values: list[int]) -> Histogram:
    histogram = Histogram()
    histogram.sum_us = count_values(histogram.counts, [float(value) for value in values])
    return histogram


# --- totals -------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 3), diffs | st.none())))
def test_counters_are_the_sum_of_the_diffs_and_outlive_processes(history: list[tuple[int, Diff | None]]) -> None:
    totals, ended = Totals(), 0
    running: dict[int, int] = {}
    for pid, diff in history:
        before = totals.functions().values()
        counted = [(stats.done, stats.failed, stats.timed_out) for stats in before]
        if diff is None:
            totals.gone(pid, CRASHED, 1.0)
            running.pop(pid, None)
        else:
            totals.add(pid, diff)
            ended += sum(each.ended for each in diff.functions.values())
            running[pid] = sum(each.running for each in diff.functions.values())
        after = [(stats.done, stats.failed, stats.timed_out) for stats in totals.functions().values()]
        assert all(new >= old for old, new in zip(counted, after, strict=False))
    assert sum(stats.ended for stats in totals.functions().values()) == ended
    assert sum(stats.running for stats in totals.functions().values()) == sum(running.values())


@given(st.lists(diffs))
def test_all_functions_together_are_the_sum_in_the_history(said: list[Diff]) -> None:
    totals = Totals()
    totals.tick(100)
    for diff in said:
        totals.add(1, diff)
    totals.tick(101)
    history = totals.history.seconds.history()
    assert history
    assert history.done[-1] == sum(each.done for diff in said for each in diff.functions.values())
    assert history.failed[-1] == sum(each.failed + each.timed_out for diff in said for each in diff.functions.values())


def test_totals_tell_the_last_minute_the_servers_and_how_processes_ended() -> None:
    totals = Totals()
    durations = {bucket_of(1000): 90, bucket_of(1_000_000): 10}
    for second in range(1000, 1010):
        totals.tick(second)
        diff = FunctionDiff(done=99, failed=1, durations=durations)
        totals.add(1, Diff({"f": diff}, {"a:1": ServerDiff(True, grabs=5)}, ProcessDiff(cpu_seconds=0.5)))
    totals.add(2, Diff({}, {"a:1": ServerDiff(False, reconnects=1)}))
    totals.tick(1010)
    recent = totals.functions(["f", "g"])["f"].recent
    assert (recent.per_second, recent.failed_per_second, recent.ended, recent.failed) == (100, 1, 1000, 10)
    assert 0.0009 < recent.p50_seconds < 0.0011
    assert 0.9 < recent.p95_seconds < 1.1
    assert totals.functions()["g"].ended == 0
    server = totals.servers(["b:1"])["a:1"]
    assert (server.connected, server.disconnected, server.reconnects, server.grabs) == (1, 1, 1, 50)
    assert totals.process(1).cpu_seconds == 5
    totals.gone(1, DRAINED, 1010)
    totals.gone(2, CRASHED, 1010)
    assert {reason: count for reason, count in totals.worker_ends.items() if count} == {DRAINED: 1, CRASHED: 1}
    assert (totals.deaths(1011), totals.deaths(2000)) == (1, 0)
    assert totals.servers(["b:1"]).keys() == {"b:1"}
    for second in range(1010, 1080):
        totals.tick(second)
    assert totals.functions()["f"].recent.ended == 0


def test_a_counter_is_taken_once_and_an_idle_one_costs_nothing() -> None:
    counter = FunctionCounter()
    assert counter.take(0) is None
    counter.durations.append(5000.4)
    counter.waits.append(20.0)
    diff = counter.take(3)
    assert diff == FunctionDiff(
        done=1,
        durations={bucket_of(5000): 1},
        duration_us=5000,
        waits={bucket_of(20): 1},
        wait_us=20,
        running=3,
    )
    assert counter.take(0) is None
    assert msgspec.json.encode(Diff()) == b"{}"


@given(diffs)
def test_diffs_survive_the_wire(diff: Diff) -> None:
    assert msgspec.json.decode(msgspec.json.encode(diff), type=Diff) == diff


def test_two_functions_share_no_histogram() -> None:
    FunctionStats().durations.add({1: 1})
    assert FunctionStats().durations.count == 0


# --- failures -----------------------------------------------------------------------------------------------------


def test_the_last_failures_are_kept_and_all_are_counted_by_kind() -> None:
    failures = Failures(keep=3)
    for number in range(5):
        failures.add(failure(str(number), function="f" if number % 2 else "g", time=float(number)))
    assert [each.text for each in failures.newest()] == ["4", "3", "2"]
    assert [each.text for each in failures.newest(function="f")] == ["3"]
    assert [each.number for each in failures.newest(after=4)] == [5]
    groups = [(group.function, group.count, group.last_time) for group in failures.groups()]
    assert groups == [
        ("g", 3, 4.0),
        ("f", 2, 3.0),
    ]


def test_a_failure_is_bounded_whatever_the_job_says() -> None:
    failures = Failures()
    huge = "ä€𝄞" * 100_000
    failures.add(
        failure(huge, function=huge, handle=huge, unique=huge, type=huge, traceback=huge, workload=b"w" * 10**6)
    )
    kept = failures.newest()[0]
    assert len(msgspec.json.encode(kept)) < 2 * (MAX_TRACEBACK_BYTES + MAX_WORKLOAD_BYTES)


@given(st.text(), st.integers(20, 100))
def test_cutting_keeps_what_fits_and_never_more(text: str, most: int) -> None:
    size = len(text.encode(errors="backslashreplace"))
    for shorten in (cut, cut_middle):
        short = shorten(text, most)
        assert short == text if size <= most else len(short.encode()) <= most


def test_a_cut_traceback_keeps_its_end() -> None:
    assert cut_middle("begin " + "x" * 10_000 + " the end", 1000).endswith(" the end")


def test_of_a_flood_only_some_failures_are_told() -> None:
    new = NewFailures(most=2)
    for _ in range(5):
        new.add(failure())
    assert not new.has_room
    assert len(new.take()) == 2
    assert new.has_room
    assert new.take() == ()


# --- history ------------------------------------------------------------------------------------------------------


def test_history_keeps_seconds_and_minutes_and_knows_the_gaps() -> None:
    recorder = Recorder()
    for second in (6000, 6001, 6003, 6060):
        recorder.put(second, {ALL: (second - 5999, 1, 7, {bucket_of(1000): 1})})
    seconds = recorder.seconds.history(most=62)
    assert seconds
    assert (seconds.end, seconds.step_seconds) == (6060, 1)
    assert seconds.done[:5] == (0, 1, 2, 0, 4)
    assert seconds.done[-1] == 61
    assert 0.0009 < seconds.p50_seconds[1] < 0.0011
    minutes = recorder.minutes.history(most=2)
    assert minutes
    assert (minutes.end, minutes.done, minutes.failed, minutes.running) == (6000, (0, 7), (0, 3), (0, 7))


def test_an_hour_without_anything_forgets_a_function() -> None:
    recorder = Recorder()
    recorder.put(10_000, {"f": (1, 0, 0, {})})
    assert recorder.seconds.history("f")
    recorder.put(10_000 + 3600, {"f": (0, 0, 0, {}), ALL: (0, 0, 0, {})})
    assert recorder.seconds.history("f") is None
    assert recorder.seconds.history() is not None


@settings(max_examples=30)
@given(st.lists(st.integers(-4000, 4000), max_size=30))
def test_history_is_what_was_put_whatever_the_gaps_and_where_the_clock_is_put_back(gaps: list[int]) -> None:
    recorder, now = Recorder(), 200_000
    put: dict[int, int] = {}
    for gap in gaps:
        now += gap
        if gap or not put:
            recorder.put(now, {ALL: (now, 0, 0, {}), "f": (1, 0, 0, {})})
            put = {second: count for second, count in put.items() if now - 3600 < second < now} | {now: now}
    history = recorder.seconds.history()
    assert history
    if put:
        expected = [put.get(second, 0) for second in range(history.end - 3599, history.end + 1)]
        assert list(history.done) == expected
        of_one = recorder.seconds.history("f")
        assert of_one
        assert list(of_one.done) == [int(bool(count)) for count in expected]


def test_minutes_go_on_after_the_clock_was_put_back() -> None:
    recorder = Recorder()
    for second in (*range(86_400, 86_580), *range(3600, 3781)):  # it was a day fast
        recorder.put(second, {ALL: (1, 0, 0, {})})
    minutes = recorder.minutes.history(most=3)
    assert minutes
    assert (minutes.end, minutes.done) == (3720, (60, 60, 60))


def test_history_of_a_hundred_functions_fits_in_ten_mebibytes() -> None:
    tracemalloc.start()
    recorder = Recorder()
    for second in range(0, 180, 7):
        recorder.put(60_000 + second, {str(number): (1, 0, 1, {1: 1}) for number in range(100)} | {ALL: (1, 0, 0, {})})
    size, _ = tracemalloc.get_traced_memory()
    assert size < 10 * 2**20
    for second in range(0, 180, 60):
        recorder.put(61_000 + second, {str(number): (1, 0, 1, {}) for number in range(5000)})
    assert tracemalloc.get_traced_memory()[0] < 12 * 2**20
    tracemalloc.stop()


def test_histories_of_several_daemons_add_up_second_by_second() -> None:
    one = History("f", 1, 100, (1, 2, 3), (0, 0, 1), (1, 1, 1), (0.1, 0.1, 0.1), (0.2, 0.2, 0.2))
    other = History("f", 1, 101, (10, 20), (0, 0), (5, 5), (0.3, 0.0), (0.1, 0.1))
    together = added([one, other])
    assert together
    assert (together.end, together.done, together.running) == (101, (2, 13, 20), (1, 6, 5))
    assert together.p50_seconds == (0.1, 0.3, 0.0)
    assert added([]) is None
    assert together.p95_seconds == (0.2, 0.2, 0.1)
