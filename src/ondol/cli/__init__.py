"""service: the command line: one module a command, loaded when that command runs."""
