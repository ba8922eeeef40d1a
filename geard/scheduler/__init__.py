"""The scheduler: a process beside the workers that submits the next times of `schedules`, ahead, as delayed jobs."""
