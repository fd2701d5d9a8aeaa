"""A sweep whose experiments run on the machines of a Prefect work pool."""
