"""Tables for people: the terminal, Markdown, one HTML page. Reads records; imports no torch."""
