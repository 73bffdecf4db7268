"""What the machine does meanwhile: probes, disturbances, counters."""
