"""The bookkeeping tables of the tools, read and written so that the tool agrees afterwards."""
