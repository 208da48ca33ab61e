"""What a rollout has to say to people: on a terminal, on a page, in a job's summary, and when it was aborted."""
