"""``python -m scripts.completion``."""

from scripts.cli.entry_point import run_command
from scripts.completion import main

run_command(main)
