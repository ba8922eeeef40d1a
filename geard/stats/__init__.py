"""What is counted and what is shown of it: pure data, in the worker processes, the supervisor and all that looks in.

A worker process counts in FunctionCounters (counters.py) and sends what was added as a Diff (diff.py) with each
heartbeat; the supervisor adds the Diffs up in Totals (totals.py), with failures (failures.py) and history (history.py),
and answers with a Snapshot (snapshot.py), which is all that the monitor, `geard top` and the API read.

Rules:
- No clock, socket, log or gevent: whoever calls says what time it is.
- Counters never fall: a Diff is added once, and outlives the process that sent it. What goes up and down (running jobs,
  memory) belongs to a process and goes with it.
- A function's numbers are bounded by the number of functions, and all text from jobs is cut to a length.
"""
