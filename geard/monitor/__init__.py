"""The monitor: metrics, health, the dashboard and its API, in a process of its own beside the workers.

It reads the supervisor's state over the control socket and asks the job servers over their admin protocol, in greenlets
of its own (state.py); a request is answered from what is known by then, and waits for nobody. Flask and
prometheus_client are loaded in this process only. It may be hammered, hung or killed: the daemon does not notice.
"""
