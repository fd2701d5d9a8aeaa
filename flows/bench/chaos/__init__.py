"""`triage bench chaos`: a sweep under faults, and what is left of it at the end."""
