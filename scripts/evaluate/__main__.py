"""``python -m scripts.evaluate``."""

from scripts.cli.entry_point import run_command
from scripts.evaluate import main

run_command(main)
