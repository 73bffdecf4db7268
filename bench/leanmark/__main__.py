"""``python -m leanmark``."""

from leanmark.cli import main

if __name__ == "__main__":
    main()
