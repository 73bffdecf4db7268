"""The measuring side's child: what happens inside a worker process."""
