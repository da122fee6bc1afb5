"""HTML pages of one file each: a run, and runs side by side."""

from qprune.pages.comparison_page import comparison_page
from qprune.pages.rendering import write_page
from qprune.pages.run_page import run_page
