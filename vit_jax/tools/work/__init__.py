"""What the tools do, once they have read their arguments.

Here jax and all the rooms are imported, which takes seconds; a tool does not,
so that its --help and its complaints come at once.
"""
