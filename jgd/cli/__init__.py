"""The command line: a thin layer over `jgd.protocols` and `jgd.data`."""
