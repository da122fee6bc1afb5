"""The costs of a network per layer and in total, performance density, and tables of both."""

from qprune.costs.chain import chain_cells, chain_of, chain_table
from qprune.costs.density import merit, performance_density, performance_density_legacy
from qprune.costs.forecast import carry_out, forecast
from qprune.costs.layer_cost import LayerCost
from qprune.costs.report_file import UnreadableReportError, read_report
from qprune.costs.shrinking import LayerChange, ShrinkReport, ShrinkTotal, report_shrunk
from qprune.costs.summary import Summary, TotalCost, summarize
from qprune.costs.timing import forward_times, time_table
