"""From records to tables, verdicts, gates and grams, without torch."""
