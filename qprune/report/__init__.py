"""What a network costs and what it bought: the cost ledger, performance density, and tables of both."""

from qprune.report.chain import chain_of, chain_table
from qprune.report.costs import LayerCost
from qprune.report.density import merit, performance_density, performance_density_legacy
from qprune.report.forecast import forecast
from qprune.report.summary import Summary, TotalCost, summarize
from qprune.report.tables import table

__all__ = [
    "LayerCost",
    "Summary",
    "TotalCost",
    "chain_of",
    "chain_table",
    "forecast",
    "merit",
    "performance_density",
    "performance_density_legacy",
    "summarize",
    "table",
]
