"""The run in the console: a live display on a terminal, plain lines elsewhere."""

from lerax_dist.backends.console._console import ConsoleBackend as ConsoleBackend
