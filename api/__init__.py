"""The HTTP API: takes jobs, tells of them, hands out what they leave. It never loads torch."""
