"""The command line: a thin layer over `jgd.evaluation` and `jgd.data`."""
