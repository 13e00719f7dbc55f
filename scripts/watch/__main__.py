"""``python -m scripts.watch``."""

from scripts.cli.entry_point import run_command
from scripts.watch import main

run_command(main)
