"""`python -m qprune` is the command line."""

from qprune.cli import main

main(prog_name="qprune")
