"""The costs of a network per layer and in total, performance density, and tables of both."""

from qprune.report.chain import chain_of, chain_table
from qprune.report.costs import LayerCost
from qprune.report.density import merit, performance_density, performance_density_legacy
from qprune.report.forecast import carry_out, forecast
from qprune.report.shrinking import LayerChange, ShrinkReport, ShrinkTotal, report_shrunk
from qprune.report.summary import Summary, TotalCost, summarize
from qprune.report.tables import html_table, short, table
from qprune.report.timing import forward_times, time_table
