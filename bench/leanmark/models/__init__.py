"""What can be told about a model: the prepared artifact, its operators, work and fidelity."""
