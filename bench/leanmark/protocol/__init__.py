"""What parent and worker agree on: messages, process layout, and how a process ends."""
