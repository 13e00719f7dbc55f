"""``python -m scripts.compare``."""

from scripts.cli.entry_point import run_command
from scripts.compare import main

run_command(main)
