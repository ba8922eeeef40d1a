"""The embedded job server: `rules` decide, `server` is the network, the clock and the store around them.

For one machine, for tests and for the first day; where there is more than one machine, use gearmand.
"""
