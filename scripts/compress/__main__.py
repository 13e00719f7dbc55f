"""``python -m scripts.compress``."""

from scripts.cli.entry_point import run_command
from scripts.compress import main

run_command(main)
