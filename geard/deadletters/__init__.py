"""The dead letters: jobs that failed for good, kept in an SQLite file, to be looked at, run again or dropped."""
