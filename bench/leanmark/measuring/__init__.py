"""The measuring side's parent: it plans, starts processes, waits and writes, without torch."""
