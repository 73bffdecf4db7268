"""What is done to a model: each technique is a frozen set of options and a function of models."""
