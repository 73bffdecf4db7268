"""Tables for people (the terminal, Markdown, one HTML page) and files for dashboards. Imports no torch."""
