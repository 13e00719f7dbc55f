"""``python -m scripts.bench``."""

from scripts.bench import main
from scripts.cli.entry_point import run_command

run_command(main)
