"""``python -m scripts.report``."""

from scripts.cli.entry_point import run_command
from scripts.report import main

run_command(main)
