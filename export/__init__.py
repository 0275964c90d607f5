"""Turns a ticket into what a device can run: `python -m export --help` is the command.

`export.ticket` reads and writes tickets, `export.network` is their graph, `export.lower` makes one from any nn.Module.
"""
