"""What is measured: a model, real data, a training recipe and a measure of quality."""
