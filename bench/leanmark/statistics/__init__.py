"""How sure a number is: pure functions over blocks and rounds."""
